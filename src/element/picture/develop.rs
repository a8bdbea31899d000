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
use crate::{EngineError, Frame, VideoLlm};

/// Develops the shots of one stream.
pub(in crate::element) struct Darkroom {
    /// Longer side in pixels of what the model looks at; 0: as it likes.
    frame_size: usize,
    tray: Option<Tray>,
}

/// What turns copies of one layout into RGB.
struct Tray {
    from: gst_video::VideoInfo,
    to: gst_video::VideoInfo,
    converter: gst_video::VideoConverter,
    rgb: gst::Buffer,
}

impl Darkroom {
    pub fn new(frame_size: u32) -> Self {
        Self { frame_size: frame_size as usize, tray: None }
    }

    /// # Errors
    /// [`EngineError::Frame`] with what is wrong with the frame.
    pub fn develop(
        &mut self,
        shot: &Shot,
        time: f64,
        model: &VideoLlm,
    ) -> Result<Frame, EngineError> {
        let rgb = self.rgb(shot).map_err(|reason| EngineError::Frame { time, reason })?;
        let (width, height) = shot.turn.size((shot.window.width, shot.window.height));
        let (across, down) = self.shape(shot, |width, height| model.resolution(width, height));
        Frame::new(rgb, width, height, time)?.shown_as(across, down)
    }

    /// Width and height of the picture as the model is to take it. `resolution` says at how many
    /// pixels it looks at a picture of a shape.
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

    /// Packed RGB of what is to be seen, upright.
    fn rgb(&mut self, shot: &Shot) -> Result<Vec<u8>, String> {
        let tray = match self.tray.take() {
            Some(tray) if tray.from == shot.info => tray,
            _ => Tray::new(&shot.info)?,
        };
        self.tray.insert(tray).develop(shot)
    }
}

impl Tray {
    fn new(from: &gst_video::VideoInfo) -> Result<Self, String> {
        let (converter, to) = converter(from)?;
        let rgb = gst::Buffer::with_size(to.size())
            .map_err(|_| format!("no memory for {} bytes", to.size()))?;
        Ok(Self { from: from.clone(), to, converter, rgb })
    }

    fn develop(&mut self, shot: &Shot) -> Result<Vec<u8>, String> {
        let source = gst_video::VideoFrameRef::from_buffer_ref_readable(&shot.copy, &shot.info)
            .map_err(|_| "the copy cannot be mapped")?;
        let rgb = self.rgb.get_mut().ok_or("the RGB buffer is shared")?;
        {
            let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(rgb, &self.to)
                .map_err(|_| "the RGB buffer cannot be mapped")?;
            self.converter.frame_ref(&source, &mut target);
        }
        let Window { left, top, width, height } = shot.window;
        let stride = self.to.stride()[0];
        let start = top * stride as usize + left * 3;
        if !shot.overlays.is_empty() {
            // Overlays count from the corner of what is seen.
            let window = gst_video::VideoInfo::builder(
                gst_video::VideoFormat::Rgb,
                width as u32,
                height as u32,
            )
            .offset(&[start])
            .stride(&[stride])
            .size(self.to.size())
            .build()
            .map_err(|_| "the picture is too large for an overlay")?;
            let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(rgb, &window)
                .map_err(|_| "the RGB buffer cannot be mapped")?;
            for overlay in &shot.overlays {
                overlay.blend(&mut target).map_err(|_| "its overlay cannot be drawn")?;
            }
        }
        let map = rgb.map_readable().map_err(|_| "the RGB buffer cannot be mapped")?;
        map.get(start..)
            .and_then(|bytes| shot.turn.pack(bytes, stride as usize, width, height))
            .ok_or_else(|| "its window is outside of its picture".into())
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
