// SPDX-License-Identifier: MPL-2.0
//! From the copy of a frame to the model's picture: colours, crop, overlays, and the right way up.
//!
//! Every pixel that is to be seen stays. The one resize is the model's own, with the filter and to
//! the size that its processor's settings say, so that fine print is as legible as in the model's
//! home. `frame-size` bounds what the model looks at, never what it looks at it from.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::Window;
use super::shot::Shot;
use crate::{EngineError, Frame};

/// Develops the shots of one stream.
pub(in crate::element) struct Darkroom {
    /// Longer side in pixels of what the model looks at; 0: as it likes.
    frame_size: usize,
    tray: Option<Tray>,
    /// Its memory becomes the next frame's as soon as nobody looks at it any more: pages that go back to the
    /// system and come anew cost more than the pixels.
    last: Option<Frame>,
}

/// What turns copies of one layout into RGB.
struct Tray {
    from: gst_video::VideoInfo,
    to: gst_video::VideoInfo,
    converter: gst_video::VideoConverter,
    /// Whole pictures of which a part is taken.
    rgb: Option<gst::Buffer>,
}

impl Darkroom {
    pub fn new(frame_size: u32) -> Self {
        Self { frame_size: frame_size as usize, tray: None, last: None }
    }

    /// `resolution` says at how many pixels the model looks at a picture of a shape.
    ///
    /// # Errors
    /// [`EngineError::Frame`] with what is wrong with the frame.
    pub fn develop(
        &mut self,
        shot: &Shot,
        time: f64,
        resolution: impl Fn(usize, usize) -> (usize, usize),
    ) -> Result<Frame, EngineError> {
        let room = self.last.take().and_then(Frame::into_rgb).unwrap_or_default();
        let rgb = self.rgb(shot, room).map_err(|reason| EngineError::Frame { time, reason })?;
        let (width, height) = shot.turn.size((shot.window.width, shot.window.height));
        let (across, down) = self.shape(shot, resolution);
        let frame = Frame::new(rgb, width, height, time)?.shown_as(across, down)?;
        self.last = Some(frame.clone());
        Ok(frame)
    }

    /// Width and height of the picture as the model is to take it.
    fn shape(
        &self,
        shot: &Shot,
        resolution: impl Fn(usize, usize) -> (usize, usize),
    ) -> (usize, usize) {
        let Window { width, height, .. } = shot.window;
        // The height stays, as in GStreamer's sinks: rows of interlaced pictures are not stretched.
        let stretched = (width as f64 * shot.pixel_aspect).round().max(1.0) as usize;
        let (width, height) = shot.turn.size((stretched, height));
        let (across, down) = resolution(width, height);
        match self.frame_size {
            limit if limit > 0 && across.max(down) > limit => bounded(width, height, limit),
            _ => (width, height),
        }
    }

    /// Packed RGB of what is to be seen, upright, in the memory of `room` where it suffices.
    fn rgb(&mut self, shot: &Shot, room: Vec<u8>) -> Result<Vec<u8>, String> {
        let tray = match self.tray.take() {
            Some(tray) if tray.from == shot.info => tray,
            _ => Tray::new(&shot.info)?,
        };
        self.tray.insert(tray).develop(shot, room)
    }
}

impl Tray {
    fn new(from: &gst_video::VideoInfo) -> Result<Self, String> {
        let (converter, to) = converter(from)?;
        Ok(Self { from: from.clone(), to, converter, rgb: None })
    }

    fn develop(&mut self, shot: &Shot, room: Vec<u8>) -> Result<Vec<u8>, String> {
        let Window { left, top, width, height } = shot.window;
        let stride = self.to.stride()[0] as usize;
        let start = top * stride + left * 3;
        let packed = (start, width * 3, height) == (0, stride, self.to.height() as usize);
        if packed && shot.turn.is_none() {
            let mut rgb = gst::Buffer::from_mut_slice(self.room(room)?);
            self.expose(shot, start, &mut rgb)?;
            return rgb.try_into_inner().map_err(|_| "the RGB buffer is shared".into());
        }
        let mut rgb = match self.rgb.take() {
            Some(rgb) => rgb,
            None => gst::Buffer::from_mut_slice(self.room(Vec::new())?),
        };
        self.expose(shot, start, &mut rgb)?;
        let map = rgb.map_readable().map_err(|_| "the RGB buffer cannot be mapped")?;
        let packed =
            map.get(start..).and_then(|rgb| shot.turn.pack(rgb, stride, width, height, room));
        drop(map);
        self.rgb = Some(rgb);
        packed.ok_or_else(|| "its window is outside of its picture".into())
    }

    /// As many bytes as the whole picture has.
    fn room(&self, mut room: Vec<u8>) -> Result<Vec<u8>, String> {
        let size = self.to.size();
        room.try_reserve_exact(size.saturating_sub(room.len()))
            .map_err(|_| format!("no memory for {size} bytes"))?;
        room.resize(size, 0);
        Ok(room)
    }

    /// The whole picture in RGB, with overlays on what is to be seen of it, which begins at byte `start`.
    fn expose(&self, shot: &Shot, start: usize, rgb: &mut gst::Buffer) -> Result<(), String> {
        let source = gst_video::VideoFrameRef::from_buffer_ref_readable(&shot.copy, &shot.info)
            .map_err(|_| "the copy cannot be mapped")?;
        let rgb = rgb.get_mut().ok_or("the RGB buffer is shared")?;
        {
            let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(rgb, &self.to)
                .map_err(|_| "the RGB buffer cannot be mapped")?;
            self.converter.frame_ref(&source, &mut target);
        }
        if shot.overlays.is_empty() {
            return Ok(());
        }
        // Overlays count from the corner of what is seen.
        let Window { width, height, .. } = shot.window;
        let window =
            gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width as u32, height as u32)
                .offset(&[start])
                .stride(&[self.to.stride()[0]])
                .size(self.to.size())
                .build()
                .map_err(|_| "the picture is too large for an overlay")?;
        let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(rgb, &window)
            .map_err(|_| "the RGB buffer cannot be mapped")?;
        for overlay in &shot.overlays {
            overlay.blend(&mut target).map_err(|_| "its overlay cannot be drawn")?;
        }
        Ok(())
    }
}

/// What converts pictures into RGB of the same size.
///
/// # Errors
/// Says that it cannot be done, and what to put in front of the element.
pub(super) fn converter(
    from: &gst_video::VideoInfo,
) -> Result<(gst_video::VideoConverter, gst_video::VideoInfo), String> {
    let format = from.format();
    let unknown = || {
        format!(
            "{} cannot be converted to RGB; put videoconvert before the element",
            format.to_str()
        )
    };
    if from.n_planes() == 0 {
        return Err(unknown());
    }
    let to =
        gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, from.width(), from.height())
            .fps(from.fps())
            .interlace_mode(from.interlace_mode())
            .build()
            .map_err(|_| {
                format!("{}x{} is more than can be converted", from.width(), from.height())
            })?;
    let mut config = gst_video::VideoConverterConfig::new();
    // Dithering is for eyes; to the model it is noise that changes from frame to frame.
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    let converter = gst_video::VideoConverter::new(from, &to, Some(config));
    converter.map(|converter| (converter, to)).map_err(|_| unknown())
}

/// The shape with its longer side at most `limit` and the aspect ratio kept.
fn bounded(width: usize, height: usize, limit: usize) -> (usize, usize) {
    let longer = width.max(height);
    if longer <= limit {
        return (width, height);
    }
    let scale = |side: usize| {
        let scaled = (side as u128 * limit as u128 + longer as u128 / 2) / longer as u128;
        (scaled as usize).max(1)
    };
    (scale(width), scale(height))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
