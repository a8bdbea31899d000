// SPDX-License-Identifier: MPL-2.0
//! What becomes of buffers: planes, strides, crops, sides, and bad input.

use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use super::super::{Orientation, Source};
use super::*;

#[path = "wild.rs"]
mod wild;

fn caps(text: &str) -> gst::Caps {
    gst::init().unwrap();
    text.parse().unwrap()
}

fn source(format: &str, width: usize, height: usize) -> Source {
    Source::new(&caps(&format!("video/x-raw,format={format},width={width},height={height}")))
        .unwrap()
}

/// Packed RGB as the model gets it, and its sides.
fn seen(source: &Source, buffer: &gst::BufferRef) -> Result<(Vec<u8>, usize, usize), String> {
    let shot = source.shoot(buffer, &Orientation::default())?;
    let rgb = Darkroom::new(0).rgb(&shot, Vec::new())?;
    Ok((rgb, shot.window.width, shot.window.height))
}

/// A picture in which no two neighbours are alike, in the layout that caps imply.
fn noise(source: &Source) -> gst::Buffer {
    let mut state = 7_u32;
    let bytes: Vec<u8> = (0..source.info.size())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    gst::Buffer::from_slice(bytes)
}

fn crop(buffer: &mut gst::Buffer, rect: (u32, u32, u32, u32)) {
    gst_video::VideoCropMeta::add(buffer.make_mut(), rect);
}

/// The buffer with a video meta that says what its caps imply, as `videocrop` adds it.
fn with_meta(source: &Source, mut buffer: gst::Buffer) -> gst::Buffer {
    let info = &source.info;
    gst_video::VideoMeta::add_full(
        buffer.make_mut(),
        gst_video::VideoFrameFlags::empty(),
        info.format(),
        info.width(),
        info.height(),
        info.offset(),
        info.stride(),
    )
    .unwrap();
    buffer
}

/// The rows and columns of a packed picture that a window shows.
fn cut(rgb: &[u8], width: usize, window: (usize, usize, usize, usize)) -> Vec<u8> {
    let (left, top, across, down) = window;
    let rows = rgb.chunks_exact(3 * width).skip(top).take(down);
    rows.flat_map(|row| &row[3 * left..3 * (left + across)]).copied().collect()
}

#[test]
fn rgb_pixels_arrive_as_they_were() {
    let source = source("RGB", 5, 3);
    // Rows of RGB are padded to four bytes: 5 pixels take 16.
    let padded: Vec<u8> = (0..48).collect();
    let (rgb, width, height) = seen(&source, &gst::Buffer::from_slice(padded.clone())).unwrap();
    let expected: Vec<u8> = padded.chunks(16).flat_map(|row| row[..15].to_vec()).collect();
    assert_eq!((rgb, width, height), (expected, 5, 3));
}

#[test]
fn strides_of_a_video_meta_are_honoured_and_checked() {
    let source = source("RGB", 2, 2);
    let bytes: Vec<u8> = (0..40).collect();
    let with_meta = |offset: usize, stride: i32| {
        let mut buffer = gst::Buffer::from_slice(bytes.clone());
        gst_video::VideoMeta::add_full(
            buffer.get_mut().unwrap(),
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Rgb,
            2,
            2,
            &[offset],
            &[stride],
        )
        .unwrap();
        buffer
    };
    let (rgb, ..) = seen(&source, &with_meta(3, 17)).unwrap();
    assert_eq!(rgb, [3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24, 25]);
    for (offset, stride) in [(3, 1 << 20), (30, 17), (3, -17), (usize::MAX, 17), (3, i32::MAX)] {
        assert!(seen(&source, &with_meta(offset, stride)).is_err(), "{offset} {stride}");
    }
}

#[test]
fn a_buffer_that_is_too_short_is_refused() {
    let source = source("NV12", 64, 64);
    assert!(seen(&source, &gst::Buffer::new()).is_err());
    assert!(seen(&source, &gst::Buffer::with_size(64 * 64).unwrap()).is_err());
}

#[test]
fn a_picture_may_lie_in_several_memories_however_they_are_cut() {
    for format in ["I420", "NV12", "RGB", "v210", "NV12_4L4"] {
        let source = source(format, 50, 34);
        let whole = noise(&source);
        let bytes = whole.map_readable().unwrap().to_vec();
        let expected = seen(&source, &whole).unwrap();
        for pieces in [2, 3, 7] {
            let mut buffer = gst::Buffer::new();
            for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                buffer.get_mut().unwrap().append_memory(gst::Memory::from_slice(piece.to_vec()));
            }
            assert!(seen(&source, &buffer).unwrap() == expected, "{format} in {pieces}");
        }
    }
}

/// Crops at each side, even and odd, down to one pixel.
const CROPS: [(u32, u32, u32, u32); 9] = [
    (0, 0, 48, 32),
    (20, 0, 28, 32),
    (0, 6, 48, 26),
    (0, 0, 31, 32),
    (0, 0, 48, 19),
    (7, 0, 41, 32),
    (0, 5, 48, 27),
    (13, 9, 17, 11),
    (47, 31, 1, 1),
];

#[test]
fn a_crop_shows_the_pixels_that_lie_in_it_whatever_the_format() {
    gst::init().unwrap();
    for format in gst_video::VideoFormat::iter_raw() {
        let source = source(format.to_str(), 48, 32);
        let whole = noise(&source);
        let (all, ..) = seen(&source, &whole).unwrap();
        for rect in CROPS {
            let mut buffer = with_meta(&source, whole.clone());
            crop(&mut buffer, rect);
            let (left, top, width, height) =
                (rect.0 as usize, rect.1 as usize, rect.2 as usize, rect.3 as usize);
            let (rgb, across, down) = seen(&source, &buffer).unwrap();
            assert_eq!((across, down), (width, height), "{format} {rect:?}");
            let expected = cut(&all, 48, (left, top, width, height));
            let info = source.info.format_info();
            let subsampled = info.w_sub().iter().chain(info.h_sub()).any(|sub| *sub > 0);
            if !subsampled {
                assert!(rgb == expected, "{format} {rect:?}");
                continue;
            }
            // Colours at the edge are made up from the samples that are to be seen alone; everything
            // further inside has all the samples it had.
            let (near, far) = (4.min(width / 2), 4.min(height / 2));
            let inside = (near, far, width - 2 * near, height - 2 * far);
            let same = cut(&rgb, width, inside) == cut(&expected, width, inside);
            assert!(same, "{format} {rect:?}");
        }
    }
}

#[test]
fn a_crop_of_an_interlaced_picture_keeps_its_fields_apart() {
    for format in ["I420", "NV12", "YUY2", "RGB"] {
        let caps = caps(&format!(
            "video/x-raw,format={format},width=48,height=32,interlace-mode=interleaved"
        ));
        let source = Source::new(&caps).unwrap();
        let whole = noise(&source);
        let (all, ..) = seen(&source, &whole).unwrap();
        for top in 0..8 {
            let mut buffer = with_meta(&source, whole.clone());
            crop(&mut buffer, (0, top, 48, 24));
            let (rgb, ..) = seen(&source, &buffer).unwrap();
            let inside = |rgb: &[u8], top| cut(rgb, 48, (0, top + 8, 48, 8));
            assert!(inside(&rgb, 0) == inside(&all, top as usize), "{format} {top}");
        }
    }
}

#[test]
fn a_crop_at_even_places_is_what_a_copied_crop_is() {
    // As `videocrop` copies where no crop meta is wanted.
    for format in ["I420", "NV12", "YUY2", "Y42B", "P010_10LE"] {
        let whole = source(format, 48, 32);
        let small = source(format, 22, 18);
        let mut cropped = with_meta(&whole, noise(&whole));
        let mut copied = gst::Buffer::with_size(small.info.size()).unwrap();
        {
            let from =
                gst_video::VideoFrameRef::from_buffer_ref_readable(&cropped, &whole.info).unwrap();
            let to = copied.get_mut().unwrap();
            let mut to =
                gst_video::VideoFrameRef::from_buffer_ref_writable(to, &small.info).unwrap();
            let info = whole.info.format_info();
            for plane in 0..info.n_planes() {
                let part = info.plane().iter().position(|p| *p == plane).unwrap();
                let widest = (0..info.n_components() as usize)
                    .filter(|p| info.plane()[*p] == plane)
                    .map(|p| {
                        (22_usize.div_ceil(1 << info.w_sub()[p])) * info.pixel_stride()[p] as usize
                    })
                    .max()
                    .unwrap();
                let (from_stride, to_stride) = (
                    from.plane_stride()[plane as usize] as usize,
                    to.plane_stride()[plane as usize] as usize,
                );
                let start = (6 >> info.h_sub()[part]) * from_stride
                    + (20 >> info.w_sub()[part]) * info.pixel_stride()[part] as usize;
                let rows = 18_usize >> info.h_sub()[part];
                let source_rows = from.plane_data(plane).unwrap();
                let target_rows = to.plane_data_mut(plane).unwrap();
                for row in 0..rows {
                    target_rows[row * to_stride..][..widest]
                        .copy_from_slice(&source_rows[start + row * from_stride..][..widest]);
                }
            }
        }
        crop(&mut cropped, (20, 6, 22, 18));
        assert!(seen(&whole, &cropped).unwrap() == seen(&small, &copied).unwrap(), "{format}");
    }
}

#[test]
fn a_crop_meta_needs_no_video_meta() {
    let source = source("I420", 48, 32);
    let whole = noise(&source);
    let mut with = with_meta(&source, whole.clone());
    let mut without = whole;
    crop(&mut with, (13, 9, 17, 11));
    crop(&mut without, (13, 9, 17, 11));
    assert!(seen(&source, &with).unwrap() == seen(&source, &without).unwrap());
}

#[test]
fn padding_is_not_seen_with_a_crop_meta_or_without() {
    for format in ["I420", "NV12", "RGB", "v210", "NV12_4L4", "YUY2"] {
        let (padded, shown) = (source(format, 48, 34), source(format, 47, 30));
        let clean = noise(&padded);
        let mut expected = with_meta(&padded, clean.clone());
        crop(&mut expected, (0, 0, 47, 30));
        let expected = seen(&padded, &expected).unwrap();
        let buffer = with_meta(&padded, clean);
        assert!(seen(&shown, &buffer).unwrap() == expected, "{format}");
        let mut cropped = buffer.clone();
        crop(&mut cropped, (0, 0, 47, 30));
        assert!(seen(&shown, &cropped).unwrap() == expected, "{format} cropped");
    }
}

#[test]
fn what_lies_outside_of_a_crop_leaves_no_trace() {
    for format in ["I420", "NV12", "YUY2", "P010_10LE", "RGB"] {
        let source = source(format, 48, 34);
        let pictures = [0x10_u8, 0xeb].map(|padding| {
            let grey = vec![0x80_u8; source.info.size()];
            let mut buffer = gst::Buffer::from_slice(grey);
            // Rows 30 and below, of every plane.
            {
                let buffer = buffer.get_mut().unwrap();
                let mut frame =
                    gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &source.info)
                        .unwrap();
                for plane in 0..frame.n_planes() {
                    let stride = frame.plane_stride()[plane as usize] as usize;
                    let part = source.info.format_info().plane().iter().position(|p| *p == plane);
                    let sub = source.info.format_info().h_sub()[part.unwrap()];
                    frame.plane_data_mut(plane).unwrap()[(30 >> sub) * stride..].fill(padding);
                }
            }
            let mut buffer = with_meta(&source, buffer);
            crop(&mut buffer, (0, 0, 48, 30));
            seen(&source, &buffer).unwrap()
        });
        assert!(pictures[0] == pictures[1], "{format}");
    }
}

#[test]
fn a_crop_beyond_the_picture_is_unreadable() {
    let source = source("I420", 48, 32);
    for rect in [
        (0, 0, 49, 32),
        (1, 0, 48, 32),
        (0, 30, 48, 3),
        (0, 0, 0, 32),
        (48, 0, 1, 1),
        (u32::MAX, 0, 2, 2),
        (0, 0, u32::MAX, u32::MAX),
    ] {
        for buffer in [noise(&source), with_meta(&source, noise(&source))] {
            let mut buffer = buffer;
            crop(&mut buffer, rect);
            let reason = seen(&source, &buffer).unwrap_err();
            assert!(reason.contains("crop meta"), "{rect:?}: {reason}");
        }
    }
}

#[test]
fn a_meta_of_another_format_or_a_smaller_size_is_unreadable() {
    let shown = source("I420", 48, 32);
    for (format, width, height) in [("NV12", 48, 32), ("I420", 46, 32), ("I420", 48, 30)] {
        let other = source(format, width, height);
        let buffer = with_meta(&other, noise(&other));
        let reason = seen(&shown, &buffer).unwrap_err();
        assert!(reason.contains("video meta"), "{format} {width}x{height}: {reason}");
    }
}

#[test]
fn tiles_that_are_not_there_are_unreadable() {
    let source = source("NV12_4L4", 48, 32);
    for strides in [[0, 0], [1 << 16 | 1, 1 << 16 | 1], [0xffff << 16 | 0xffff, 12 | 4 << 16]] {
        let mut buffer = noise(&source);
        gst_video::VideoMeta::add_full(
            buffer.make_mut(),
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Nv124l4,
            48,
            32,
            source.info.offset(),
            &strides,
        )
        .unwrap();
        assert!(seen(&source, &buffer).is_err(), "{strides:x?}");
    }
}

/// The sides that a model is told, for a model that looks at every pixel.
fn shape(caps_text: &str, tag: &str, frame_size: u32) -> (usize, usize) {
    let source = Source::new(&caps(caps_text)).unwrap();
    let mut tags = gst::TagList::new();
    tags.get_mut().unwrap().add::<gst::tags::ImageOrientation>(&tag, gst::TagMergeMode::Replace);
    let mut orientation = Orientation::default();
    orientation.tag(&tags);
    let shot = source.shoot(&noise(&source), &orientation).unwrap();
    Darkroom::new(frame_size).shape(&shot, |width, height| (width, height))
}

#[test]
fn pixels_that_are_not_square_are_shown_as_a_viewer_sees_them() {
    let par = |width, height, par: &str| {
        let caps = format!(
            "video/x-raw,format=GRAY8,width={width},height={height},pixel-aspect-ratio={par}"
        );
        shape(&caps, "rotate-0", 0)
    };
    assert_eq!(par(160, 240, "2/1"), (320, 240));
    assert_eq!(par(320, 240, "1/2"), (160, 240));
    assert_eq!(par(720, 576, "16/15"), (768, 576));
    assert_eq!(par(1440, 1080, "4/3"), (1920, 1080));
    assert_eq!(par(3, 240, "1/100"), (1, 240));
}

#[test]
fn a_quarter_turn_swaps_the_sides_before_anything_is_derived_from_them() {
    let wide = "video/x-raw,format=GRAY8,width=160,height=240,pixel-aspect-ratio=2/1";
    assert_eq!(shape(wide, "rotate-180", 0), (320, 240));
    assert_eq!(shape(wide, "rotate-90", 0), (240, 320));
    assert_eq!(shape(wide, "flip-rotate-270", 160), (120, 160));
}

#[test]
fn frame_size_bounds_what_the_model_looks_at_and_nothing_else() {
    let caps = "video/x-raw,format=GRAY8,width=192,height=108";
    assert_eq!(shape(caps, "rotate-0", 64), (64, 36));
    assert_eq!(shape(caps, "rotate-90", 64), (36, 64));
    assert_eq!(shape(caps, "rotate-0", 192), (192, 108));
    assert_eq!(bounded(1920, 1080, 1024), (1024, 576));
    assert_eq!(bounded(30000, 1, 1024), (1024, 1));
    // A model that looks at squares of one size is told the picture's own sides.
    let source = Source::new(&super::tests::caps(caps)).unwrap();
    let shot = source.shoot(&noise(&source), &Orientation::default()).unwrap();
    assert_eq!(Darkroom::new(64).shape(&shot, |_, _| (56, 56)), (192, 108));
    assert_eq!(Darkroom::new(64).rgb(&shot, Vec::new()).unwrap().len(), 192 * 108 * 3);
}

#[test]
fn a_frame_that_nobody_looks_at_any_more_gives_its_memory_to_the_next() {
    for (caps, method) in [
        ("video/x-raw,format=NV12,width=64,height=32", "rotate-0"),
        ("video/x-raw,format=NV12,width=66,height=32", "rotate-0"),
        ("video/x-raw,format=NV12,width=64,height=32", "rotate-90"),
    ] {
        let source = Source::new(&super::tests::caps(caps)).unwrap();
        let mut orientation = Orientation::default();
        let mut tags = gst::TagList::new();
        tags.make_mut().add::<gst::tags::ImageOrientation>(&method, gst::TagMergeMode::Replace);
        orientation.tag(&tags);
        let shoot = |buffer: &gst::Buffer| source.shoot(buffer, &orientation).unwrap();
        let (loud, grey) = (noise(&source), vec![0x80_u8; source.info.size()]);
        let (loud, grey) = (shoot(&loud), shoot(&gst::Buffer::from_slice(grey)));
        let mut room = Darkroom::new(0);
        let mut develop = |shot| room.develop(shot, 0.0, |_, _| (56, 56)).unwrap();

        let first = develop(&grey);
        let (expected, memory) = (first.rgb().to_vec(), first.rgb().as_ptr());
        let second = develop(&loud);
        assert_ne!(second.rgb().as_ptr(), memory, "{caps} {method}: it is still looked at");
        assert_eq!(first.rgb(), expected);
        let memory = second.rgb().as_ptr();
        drop(second);
        let third = develop(&grey);
        assert_eq!((third.rgb(), third.rgb().as_ptr()), (&*expected, memory), "{caps} {method}");
    }
}

#[test]
fn an_overlay_that_waits_to_be_drawn_is_drawn_on_what_is_seen() {
    let source = source("RGB", 48, 32);
    let mut white = gst::Buffer::from_slice(vec![0xff_u8; 6 * 4 * 4]);
    gst_video::VideoMeta::add(
        white.make_mut(),
        gst_video::VideoFrameFlags::empty(),
        gst_video::VideoFormat::Bgra,
        6,
        4,
    )
    .unwrap();
    let flags = gst_video::VideoOverlayFormatFlags::empty();
    let patch = gst_video::VideoOverlayRectangle::new_raw(&white, 3, 2, 6, 4, flags);
    let overlay = gst_video::VideoOverlayComposition::new([&patch]).unwrap();
    let mut buffer = gst::Buffer::from_slice(vec![0_u8; source.info.size()]);
    gst_video::VideoOverlayCompositionMeta::add(buffer.make_mut(), &overlay);
    crop(&mut buffer, (10, 8, 20, 10));
    let (rgb, width, _) = seen(&source, &buffer).unwrap();
    let drawn = |x: usize, y: usize| (3..9).contains(&x) && (2..6).contains(&y);
    for (index, pixel) in rgb.chunks(3).enumerate() {
        let (x, y) = (index % width, index / width);
        assert_eq!(pixel, [if drawn(x, y) { 0xff } else { 0 }; 3], "{x}, {y}");
    }
}

#[test]
fn a_copy_is_used_again() {
    let source = source("NV12", 64, 48);
    let buffer = noise(&source);
    let place = |shot: &Shot| shot.copy.map_readable().unwrap().as_ptr();
    let first = source.shoot(&buffer, &Orientation::default()).unwrap();
    let at = place(&first);
    drop(first);
    let second = source.shoot(&buffer, &Orientation::default()).unwrap();
    assert_eq!(place(&second), at);
    let third = source.shoot(&buffer, &Orientation::default()).unwrap();
    assert_ne!(place(&third), at);
}
