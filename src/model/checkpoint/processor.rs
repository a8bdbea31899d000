// SPDX-License-Identifier: MPL-2.0
//! What the processor files say about pixels. Their numbers are read, never assumed: the class
//! default is CLIP's mean and deviation, while the published checkpoints carry 0.5 and 0.5.

use std::path::{Path, PathBuf};

use fast_image_resize::ResizeAlg;
use serde::Deserialize;
use serde_json::Value;

use super::{QwenVisionConfig, VisionConfig, parse_json, read_text};
use crate::error::{EngineError, Result};
use crate::model::preprocess;

/// How a frame becomes pixels.
#[derive(Clone, Debug)]
pub struct ProcessorConfig {
    /// Bounds of a frame's area in pixels; one and the same for a tower that takes squares.
    pub min_pixels: usize,
    pub max_pixels: usize,
    pub resample: ResizeAlg,
    pub rescale: f64,
    pub mean: [f64; 3],
    pub std: [f64; 3],
}

/// Defaults of `LlavaOnevisionVideoProcessor`. The published files also say `do_pad` and
/// `image_grid_pinpoints`; those are for still images.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    size: Option<Size>,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    patch_size: Option<usize>,
    merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    resample: u64,
    do_resize: bool,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    do_center_crop: Option<bool>,
    image_mean: Vec<f64>,
    image_std: Vec<f64>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            size: None,
            min_pixels: None,
            max_pixels: None,
            patch_size: None,
            merge_size: None,
            temporal_patch_size: None,
            resample: 3,
            do_resize: true,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            do_center_crop: None,
            image_mean: vec![0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: vec![0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Sides { height: usize, width: usize },
    Edges { shortest_edge: usize, longest_edge: usize },
    One(usize),
}

/// Where the video settings may stand, best first: (file, the object inside it).
const PLACES: [(&str, Option<&str>); 5] = [
    ("processor_config.json", Some("video_processor")),
    ("video_preprocessor_config.json", None),
    ("preprocessor_config.json", Some("video_processor")),
    ("preprocessor_config.json", None),
    ("processor_config.json", Some("image_processor")),
];

impl ProcessorConfig {
    /// Reads the settings for video from whichever file has them, and checks them against the
    /// vision tower's.
    pub fn read(dir: &Path, vision: &VisionConfig) -> Result<Self> {
        for (file, key) in PLACES {
            let path = dir.join(file);
            if !path.exists() {
                continue;
            }
            let mut value: Value = parse_json(&path, &read_text(&path)?)?;
            if let Some(key) = key {
                match value.get_mut(key) {
                    Some(inner) if inner.is_object() => value = inner.take(),
                    _ => continue,
                }
            }
            let for_images =
                key == Some("image_processor") || value.get("image_processor_type").is_some();
            return Self::checked(&path, value, vision, for_images);
        }
        Err(EngineError::Checkpoint {
            path: dir.to_owned(),
            reason: "no processor settings; expected preprocessor_config.json, \
                     video_preprocessor_config.json or processor_config.json"
                .into(),
        })
    }

    fn checked(
        path: &PathBuf,
        mut value: Value,
        vision: &VisionConfig,
        for_images: bool,
    ) -> Result<Self> {
        let fault = |reason: String| Err(EngineError::Checkpoint { path: path.to_owned(), reason });
        // A null stands for the class default.
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, field| !field.is_null());
        }
        let raw: Raw = match serde_json::from_value(value) {
            Ok(raw) => raw,
            Err(e) => return fault(format!("processor settings: {e}")),
        };
        let area = match vision {
            VisionConfig::OneVision(vision) => raw.square(vision.tower.image_size),
            VisionConfig::Qwen(vision) => raw.area(vision, for_images),
        };
        let (min_pixels, max_pixels) = match area {
            Ok(area) => area,
            Err(reason) => return fault(reason),
        };
        if !raw.do_resize || raw.do_center_crop == Some(true) {
            return fault(
                "only resizing to `size` is supported: `do_resize` must be true and \
                 `do_center_crop` false"
                    .into(),
            );
        }
        let Some(resample) = preprocess::filter(raw.resample) else {
            return fault(format!(
                "`resample` is {}; supported: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic",
                raw.resample
            ));
        };
        let channels = |values: &[f64]| <[f64; 3]>::try_from(values).ok();
        let (mean, std) = if raw.do_normalize {
            match (channels(&raw.image_mean), channels(&raw.image_std)) {
                (Some(mean), Some(std)) => (mean, std),
                _ => return fault("`image_mean` and `image_std` need three numbers each".into()),
            }
        } else {
            ([0.0; 3], [1.0; 3])
        };
        if std.contains(&0.0) {
            return fault("`image_std` has a zero".into());
        }
        let rescale = if raw.do_rescale { raw.rescale_factor } else { 1.0 };
        Ok(Self { min_pixels, max_pixels, resample, rescale, mean, std })
    }
}

impl Raw {
    /// The square of a tower whose position table is made for `image_size`.
    fn square(&self, image_size: usize) -> std::result::Result<(usize, usize), String> {
        let side = match self.size {
            None => 384,
            Some(Size::Sides { height, width }) if height == width => height,
            Some(Size::One(side)) => side,
            Some(Size::Sides { height, width }) => {
                return Err(format!("`size` is {height}x{width}; only squares are supported"));
            }
            Some(Size::Edges { .. }) => {
                return Err("`size` has edges; expected `height` and `width`".into());
            }
        };
        if side != image_size {
            return Err(format!(
                "`size` is {side}, but the vision tower of config.json takes {image_size}"
            ));
        }
        Ok((side * side, side * side))
    }

    /// The bounds of Qwen2-VL's processor.
    fn area(
        &self,
        vision: &QwenVisionConfig,
        for_images: bool,
    ) -> std::result::Result<(usize, usize), String> {
        for (name, found, expected) in [
            ("patch_size", self.patch_size, vision.patch_size),
            ("merge_size", self.merge_size, vision.merge),
            ("temporal_patch_size", self.temporal_patch_size, vision.frames_per_unit),
        ] {
            if found.is_some_and(|found| found != expected) {
                return Err(format!(
                    "`{name}` is {}, but the vision tower of config.json has {expected}",
                    found.unwrap_or_default()
                ));
            }
        }
        let (shortest, longest) = match self.size {
            None => (128 * 28 * 28, QWEN_VIDEO_PIXELS),
            Some(Size::Edges { shortest_edge, longest_edge }) => (shortest_edge, longest_edge),
            Some(_) => {
                return Err("`size` needs `shortest_edge` and `longest_edge`, in pixels".into());
            }
        };
        let min_pixels = self.min_pixels.unwrap_or(shortest);
        let mut max_pixels = self.max_pixels.unwrap_or(longest);
        if for_images {
            max_pixels = max_pixels.min(QWEN_VIDEO_PIXELS);
        }
        if min_pixels == 0 || min_pixels > max_pixels || max_pixels > MAX_PIXELS {
            return Err(format!(
                "pictures of {min_pixels} to {max_pixels} pixels; expected 1 to {MAX_PIXELS}, in \
                 this order"
            ));
        }
        Ok((min_pixels, max_pixels))
    }
}

/// The largest frame that Qwen's own video loading hands to the model. The published folders hold
/// bounds for still images only, of which the upper one, 16384 tokens, is not meant for video.
const QWEN_VIDEO_PIXELS: usize = 768 * 28 * 28;

/// Beyond this a number is a damaged file.
const MAX_PIXELS: usize = 1 << 26;
