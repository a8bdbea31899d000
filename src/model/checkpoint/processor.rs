// SPDX-License-Identifier: MPL-2.0
//! What the processor files say about pixels. Their numbers are read, never assumed: the class
//! default is CLIP's mean and deviation, while the published checkpoints carry 0.5 and 0.5.

use std::path::{Path, PathBuf};

use fast_image_resize::ResizeAlg;
use serde::Deserialize;
use serde_json::Value;

use super::{parse_json, read_text};
use crate::error::{EngineError, Result};
use crate::model::preprocess;

/// How a frame becomes pixels.
#[derive(Clone, Debug)]
pub struct ProcessorConfig {
    /// Side of the square picture.
    pub side: usize,
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
    size: Size,
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
            size: Size::Sides { height: 384, width: 384 },
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
    /// Reads the settings for video from whichever file has them. `image_size` is the side that
    /// the vision tower's position table is made for.
    pub fn read(dir: &Path, image_size: usize) -> Result<Self> {
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
            return Self::checked(&path, value, image_size);
        }
        Err(EngineError::Checkpoint {
            path: dir.to_owned(),
            reason: "no processor settings; expected preprocessor_config.json, \
                     video_preprocessor_config.json or processor_config.json"
                .into(),
        })
    }

    fn checked(path: &PathBuf, mut value: Value, image_size: usize) -> Result<Self> {
        let fault = |reason: String| Err(EngineError::Checkpoint { path: path.to_owned(), reason });
        // A null stands for the class default.
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, field| !field.is_null());
        }
        let raw: Raw = match serde_json::from_value(value) {
            Ok(raw) => raw,
            Err(e) => return fault(format!("processor settings: {e}")),
        };
        let side = match raw.size {
            Size::Sides { height, width } if height == width => height,
            Size::One(side) => side,
            Size::Sides { height, width } => {
                return fault(format!("`size` is {height}x{width}; only squares are supported"));
            }
        };
        if side != image_size {
            return fault(format!(
                "`size` is {side}, but the vision tower of config.json takes {image_size}"
            ));
        }
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
        Ok(Self { side, resample, rescale, mean, std })
    }
}
