// SPDX-License-Identifier: MPL-2.0
//! One picture of a stream, as the engine takes it.

use std::sync::Arc;

use crate::error::{EngineError, Result};

/// A packed 8-bit RGB picture and the stream time it belongs to. Cloning shares the pixels.
#[derive(Clone, Debug)]
pub struct Frame {
    rgb: Arc<Vec<u8>>,
    width: usize,
    height: usize,
    shape: (usize, usize),
    time: f64,
    after_break: bool,
}

impl Frame {
    /// `rgb` is row-major, `width * height * 3` bytes without padding; `time` is in seconds and is
    /// what [`Evidence`](crate::Evidence) refers to.
    ///
    /// # Errors
    /// [`EngineError::Frame`] if the picture is empty, the buffer does not fit its size, or the
    /// time is not finite.
    pub fn new(rgb: Vec<u8>, width: usize, height: usize, time: f64) -> Result<Self> {
        let fault = |reason: String| Err(EngineError::Frame { time, reason });
        if width == 0 || height == 0 {
            return fault(format!(
                "the picture is {width}x{height}; both sides must be at least 1"
            ));
        }
        if !time.is_finite() {
            return fault("the time is not a finite number of seconds".into());
        }
        let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if expected != Some(rgb.len()) {
            return fault(format!(
                "{} bytes do not fill {width}x{height} packed RGB pixels",
                rgb.len()
            ));
        }
        let (rgb, shape, after_break) = (Arc::new(rgb), (width, height), false);
        Ok(Self { rgb, width, height, shape, time, after_break })
    }

    /// Between the frame before it and this one the stream was broken off: a source came back, or
    /// another took its place. However alike they are, this one is looked at.
    pub fn after_break(self) -> Self {
        Self { after_break: true, ..self }
    }

    /// Whether the stream was broken off before it.
    pub fn is_after_break(&self) -> bool {
        self.after_break
    }

    /// The same pixels, shown as a picture of this size: their sides may differ, and a model that
    /// gives larger pictures more tokens counts these pixels as that many. Every pixel stays, so
    /// that a model resizes once, from the picture as it came.
    ///
    /// # Errors
    /// [`EngineError::Frame`] if a side is 0.
    pub fn shown_as(self, width: usize, height: usize) -> Result<Self> {
        if width == 0 || height == 0 {
            let reason = format!("it is shown as {width}x{height}; both sides must be at least 1");
            return Err(EngineError::Frame { time: self.time, reason });
        }
        Ok(Self { shape: (width, height), ..self })
    }

    /// The pixels for another use, unless somebody else still looks at them.
    pub fn into_rgb(self) -> Option<Vec<u8>> {
        Arc::try_unwrap(self.rgb).ok()
    }

    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// Width and height of the picture as it is shown; those of the pixels, unless
    /// [`shown_as`](Self::shown_as) says otherwise.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Seconds of stream time.
    pub fn time(&self) -> f64 {
        self.time
    }
}

/// Sum of what the bytes of two lines of some pixels differ by.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> u32 {
    // Lines of fewer than 2^24 bytes never wrap; said aloud, it keeps a check of each sum from standing in
    // the way of vectors.
    a.iter().zip(b).fold(0, |sum: u32, (a, b)| sum.wrapping_add(u32::from(a.abs_diff(*b))))
}
