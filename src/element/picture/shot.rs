// SPDX-License-Identifier: MPL-2.0
//! The copy of a sampled frame that waits for the model: the visible part of its planes, as they
//! are. Taking it costs the streaming thread one copy of the bytes and nothing else.
//!
//! What a decoder or `videocrop` hides, by a crop meta or a video meta larger than the caps, is not
//! copied and so cannot bleed into the picture when its colours are converted; only up to the next
//! whole sample of the subsampled planes, and the rows of formats that pack pixels in groups.

use std::sync::Arc;

use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::Window;
use super::source::Source;
use super::turn::{Orientation, Turn};

/// Planes begin at multiples of this many bytes, which is what vector instructions like.
const ALIGNMENT: usize = 64;
/// Bytes of a palette.
const PALETTE: usize = 256 * 4;
/// Copies that are kept for the next frames.
const SPARE: usize = 2;

/// A sampled frame, as it came.
pub(in crate::element) struct Shot {
    /// Nobody else has it.
    pub(super) copy: gst::Buffer,
    /// How the planes lie in the copy.
    pub(super) info: gst_video::VideoInfo,
    /// What of the copy is to be seen.
    pub(super) window: Window,
    pub(super) overlays: Vec<gst_video::VideoOverlayComposition>,
    pub(super) turn: Turn,
    /// Width of a pixel by its height, before turning.
    pub(super) pixel_aspect: f64,
    spare: Arc<Spare>,
}

impl Shot {
    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        self.copy.size()
    }
}

impl Drop for Shot {
    fn drop(&mut self) {
        self.spare.put(std::mem::replace(&mut self.copy, gst::Buffer::new()));
    }
}

/// Copies that are free again; in a new one the kernel has to clear every page.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<gst::Buffer>>);

impl Spare {
    fn take(&self, size: usize) -> Result<gst::Buffer, String> {
        let mut spare = self.0.lock();
        spare.retain(|copy| copy.size() == size);
        match spare.pop() {
            Some(copy) => Ok(copy),
            None => gst::Buffer::with_size(size).map_err(|_| format!("no memory for {size} bytes")),
        }
    }

    fn put(&self, copy: gst::Buffer) {
        let mut spare = self.0.lock();
        if spare.len() < SPARE {
            spare.push(copy);
        }
    }
}

/// Bytes of a plane: where they are in the buffer, and where they go in the copy.
#[derive(Clone, Copy)]
struct Run {
    from: usize,
    len: usize,
    to: usize,
}

/// How a buffer holds its picture.
struct Layout {
    width: usize,
    height: usize,
    offsets: [usize; 4],
    strides: [i32; 4],
}

/// What of the planes is copied, and how it lies in the copy.
struct Part {
    runs: Vec<Run>,
    info: gst_video::VideoInfo,
    window: Window,
}

impl Source {
    /// # Errors
    /// Says why this buffer cannot be read.
    pub fn shoot(
        &self,
        buffer: &gst::BufferRef,
        orientation: &Orientation,
    ) -> Result<Shot, String> {
        let layout = self.layout(buffer)?;
        let window = self.window(buffer, &layout)?;
        let Part { runs, info, window } = match self.info.format_info().is_tiled() {
            true => self.tiles(&layout, window)?,
            false => self.rows(&layout, window, buffer.size())?,
        };
        let end = runs.iter().filter_map(|run| run.from.checked_add(run.len)).max();
        if end.is_none_or(|end| end > buffer.size()) {
            return Err("its planes reach beyond its end".into());
        }
        let mut copy = self.spare.take(info.size())?;
        {
            let copy = copy.get_mut().ok_or("the copy is shared")?;
            copy.unset_video_flags(gst_video::VideoBufferFlags::all());
            copy.set_video_flags(buffer.video_flags());
            let mut map = copy.map_writable().map_err(|_| "the copy cannot be mapped")?;
            self.fill(&mut map, buffer, &runs)?;
        }
        let overlays = buffer.iter_meta::<gst_video::VideoOverlayCompositionMeta>();
        let pixel = self.info.par();
        let square = pixel.numer() <= 0 || pixel.denom() <= 0;
        Ok(Shot {
            copy,
            info,
            window,
            overlays: overlays.map(|meta| meta.overlay_owned()).collect(),
            turn: orientation.turn(),
            pixel_aspect: match square {
                true => 1.0,
                false => f64::from(pixel.numer()) / f64::from(pixel.denom()),
            },
            spare: Arc::clone(&self.spare),
        })
    }

    /// As the buffer's video meta says, else as the caps imply.
    fn layout(&self, buffer: &gst::BufferRef) -> Result<Layout, String> {
        let (width, height) = (self.info.width(), self.info.height());
        let planes = |offset: &[usize], stride: &[i32]| {
            let (mut offsets, mut strides) = ([0; 4], [0; 4]);
            offsets.iter_mut().zip(offset).for_each(|(to, from)| *to = *from);
            strides.iter_mut().zip(stride).for_each(|(to, from)| *to = *from);
            (offsets, strides)
        };
        let metas = buffer.iter_meta::<gst_video::VideoMeta>();
        let Some(meta) = metas.min_by_key(|meta| meta.id()) else {
            if buffer.size() < self.info.size() {
                return Err(format!(
                    "a buffer of {} bytes is no {} picture of {width}x{height}",
                    buffer.size(),
                    self.info.format().to_str(),
                ));
            }
            let (offsets, strides) = planes(self.info.offset(), self.info.stride());
            return Ok(Layout { width: width as usize, height: height as usize, offsets, strides });
        };
        // A larger picture than the caps' is padded, and the caps' is its upper left part.
        if meta.format() != self.info.format()
            || meta.n_planes() != self.info.n_planes()
            || meta.width() < width
            || meta.height() < height
        {
            return Err(format!(
                "its video meta says {} {}x{}",
                meta.format().to_str(),
                meta.width(),
                meta.height()
            ));
        }
        let (offsets, strides) = planes(meta.offset(), meta.stride());
        let (width, height) = (meta.width() as usize, meta.height() as usize);
        Ok(Layout { width, height, offsets, strides })
    }

    /// What is to be seen of the picture.
    fn window(&self, buffer: &gst::BufferRef, layout: &Layout) -> Result<Window, String> {
        let Some(crop) = buffer.meta::<gst_video::VideoCropMeta>() else {
            let (width, height) = (self.info.width() as usize, self.info.height() as usize);
            return Ok(Window { left: 0, top: 0, width, height });
        };
        let (left, top, width, height) = crop.rect();
        let fits = |from: u32, length: u32, size: usize| {
            length > 0 && u64::from(from) + u64::from(length) <= size as u64
        };
        if !fits(left, width, layout.width) || !fits(top, height, layout.height) {
            return Err(format!(
                "its crop meta cuts {width}x{height} at {left},{top} out of {}x{}",
                layout.width, layout.height
            ));
        }
        let [left, top, width, height] = [left, top, width, height].map(|n| n as usize);
        Ok(Window { left, top, width, height })
    }

    /// The rows of a window, out of a buffer of `available` bytes.
    fn rows(&self, layout: &Layout, window: Window, available: usize) -> Result<Part, String> {
        let format = self.info.format_info();
        let (w_sub, h_sub, pixels) = (format.w_sub(), format.h_sub(), format.pixel_stride());
        // Formats that pack pixels in groups are read from the beginning of a row.
        let grouped = format.is_complex() || pixels.contains(&0);
        let across = 1 << w_sub.iter().max().unwrap_or(&0);
        let mut down = 1 << h_sub.iter().max().unwrap_or(&0);
        let fields = self.info.interlace_mode() != gst_video::VideoInterlaceMode::Progressive;
        if fields {
            // Each field has its own subsampled rows.
            down *= 2;
        }
        let left = if grouped { 0 } else { window.left - window.left % across };
        let top = window.top - window.top % down;
        let window = Window { left: window.left - left, top: window.top - top, ..window };
        let (width, height) = (window.left + window.width, window.top + window.height);
        let whole =
            self.describe(width, height)?.build().map_err(|_| unbuildable(width, height))?;

        let (mut runs, mut size) = (Vec::with_capacity(4), 0_usize);
        let (mut offsets, mut strides) = ([0; 4], [0; 4]);
        for plane in 0..format.n_planes() as usize {
            let stride = usize::try_from(layout.strides[plane])
                .map_err(|_| "its rows run backwards".to_string())?;
            let parts = (0..format.n_components() as usize)
                .filter(|part| format.plane()[*part] as usize == plane);
            let sub = |length: usize, by: u32| length.div_ceil(1 << by);
            // The second plane of a format with a palette is the palette.
            let first = parts.clone().next().filter(|_| plane == 0 || !format.has_palette());
            let (skipped, rows, row) = match first {
                None => (0, 1, PALETTE),
                Some(part) => {
                    let row = parts.clone().map(|p| sub(width, w_sub[p]) * pixels[p] as usize);
                    let row = if grouped { stride } else { row.max().unwrap_or(0) };
                    // The last of a row may be short of the colours of a pixel that is not there.
                    let short = parts.clone().map(|p| pixels[p] as usize).max().unwrap_or(0);
                    if stride == 0 || stride.saturating_add(short) < row {
                        return Err(format!("its rows of {row} bytes lie {stride} bytes apart"));
                    }
                    let row = row.min(stride);
                    let indent = parts.map(|p| (left >> w_sub[p]) * pixels[p] as usize).max();
                    let rows_above = (top >> h_sub[part]).checked_mul(stride);
                    let skipped = rows_above.and_then(|bytes| bytes.checked_add(indent?));
                    (skipped.ok_or("its rows are too long")?, sub(height, h_sub[part]), row)
                }
            };
            let from = layout.offsets[plane].checked_add(skipped).ok_or("its rows are too long")?;
            let length = |rows: usize| (rows - 1).checked_mul(stride)?.checked_add(row);
            // Subsampled rows come in pairs, one a field; decoders may leave the last one out.
            let paired = if fields { rows.next_multiple_of(2) } else { rows };
            let whole_len = length(paired).ok_or("its rows are too long")?;
            let len = match from.checked_add(whole_len) {
                Some(end) if end <= available => whole_len,
                _ if stride > available => return Err("its rows are too long".into()),
                _ => length(rows).ok_or("its rows are too long")?,
            };
            runs.push(Run { from, len, to: size });
            (offsets[plane], strides[plane]) = (size, layout.strides[plane]);
            // A meta may lie about its stride. Whoever reads a whole row from where the last one
            // begins is still inside the copy.
            let row = usize::try_from(whole.stride()[plane]).unwrap_or(0).max(PALETTE);
            let end = size.checked_add(whole_len).and_then(|end| end.checked_add(row));
            size = end.ok_or("its rows are too long")?.next_multiple_of(ALIGNMENT);
        }
        let planes = format.n_planes() as usize;
        let info = self.describe(width, height)?;
        let info = info.offset(&offsets[..planes]).stride(&strides[..planes]).size(size).build();
        Ok(Part { runs, info: info.map_err(|_| unbuildable(width, height))?, window })
    }

    /// All tiles: a window does not begin where one begins.
    fn tiles(&self, layout: &Layout, window: Window) -> Result<Part, String> {
        let (width, height) = (layout.width, layout.height);
        let whole =
            self.describe(width, height)?.build().map_err(|_| unbuildable(width, height))?;
        // The stride of a tiled plane is the number of its tiles: across in the lower half, down
        // in the upper.
        let tiles = |stride: i32| ((stride & 0xffff) as usize, (stride >> 16 & 0xffff) as usize);
        let planes = self.info.n_planes() as usize;
        let (mut runs, mut size) = (Vec::with_capacity(4), 0_usize);
        let mut offsets = [0; 4];
        for (plane, offset) in offsets.iter_mut().enumerate().take(planes) {
            let next = whole.offset().get(plane + 1).copied().unwrap_or(whole.size());
            let (least_across, least_down) = tiles(whole.stride()[plane]);
            let (across, down) = tiles(layout.strides[plane]);
            let bytes = next.saturating_sub(whole.offset()[plane]);
            if across < least_across || down < least_down || least_across * least_down == 0 {
                return Err(format!("its planes have {across}x{down} tiles"));
            }
            let len = across * down * (bytes / (least_across * least_down));
            runs.push(Run { from: layout.offsets[plane], len, to: size });
            *offset = size;
            size = (size + len).next_multiple_of(ALIGNMENT);
        }
        // GStreamer 1.22 reads some tiles of ten bits a little beyond their end.
        size += ALIGNMENT;
        let info = self.describe(width, height)?;
        let strides = &layout.strides[..planes];
        let info = info.offset(&offsets[..planes]).stride(strides).size(size).build();
        Ok(Part { runs, info: info.map_err(|_| unbuildable(width, height))?, window })
    }

    /// Another size of the caps' video.
    fn describe(
        &self,
        width: usize,
        height: usize,
    ) -> Result<gst_video::VideoInfoBuilder<'_>, String> {
        let info = &self.info;
        let side = |side: usize| u32::try_from(side).map_err(|_| unbuildable(width, height));
        Ok(gst_video::VideoInfo::builder(info.format(), side(width)?, side(height)?)
            .colorimetry(&self.colorimetry)
            .chroma_site(info.chroma_site())
            .interlace_mode(info.interlace_mode())
            .field_order(info.field_order())
            .flags(info.flags())
            .fps(info.fps()))
    }

    /// Copies runs of bytes. Memories are mapped one by one: a map of the whole buffer would merge
    /// them, which is a copy more.
    fn fill(&self, to: &mut [u8], buffer: &gst::BufferRef, runs: &[Run]) -> Result<(), String> {
        let mut begin = 0;
        let mut copied = 0;
        for memory in buffer.iter_memories() {
            let map = memory.map_readable().map_err(|_| {
                let kind = memory.allocator().map(|allocator| allocator.memory_type().to_owned());
                format!(
                    "its memory{} cannot be mapped; put {} before the element",
                    kind.map(|kind| format!(" ({kind})")).unwrap_or_default(),
                    self.download
                )
            })?;
            let end = begin + map.len();
            for run in runs {
                let (start, stop) = (run.from.max(begin), (run.from + run.len).min(end));
                if start >= stop {
                    continue;
                }
                let at = run.to + (start - run.from);
                let target = to.get_mut(at..at + (stop - start)).ok_or("the copy is too small")?;
                target.copy_from_slice(&map[start - begin..stop - begin]);
                copied += stop - start;
            }
            begin = end;
        }
        if copied == runs.iter().map(|run| run.len).sum::<usize>() {
            Ok(())
        } else {
            Err("its planes reach beyond its end".into())
        }
    }
}

fn unbuildable(width: usize, height: usize) -> String {
    format!("{width}x{height} is more than can be converted")
}
