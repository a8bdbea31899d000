// SPDX-License-Identifier: MPL-2.0
//! What the processor files say about pixels. Their numbers are read, never assumed: the class
//! default is CLIP's mean and deviation, while the published checkpoints carry 0.5 and 0.5.

use std::path::{Path, PathBuf};

use fast_image_resize::{FilterType, ResizeAlg};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pair::Kind;
use crate::error::{EngineError, Result};
use crate::model::files::{parse_json, read_text};

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

/// What a processor's file says, as written; what it leaves out is what most processor classes have.
/// The published files also say `do_pad` and `image_grid_pinpoints`; those are for still images.
#[derive(Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether they are meant for still images.
    #[serde(skip)]
    for_images: bool,
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
    crop_size: Option<Size>,
    image_mean: Vec<f64>,
    image_std: Vec<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            for_images: false,
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
            crop_size: None,
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
    Edge { shortest_edge: usize },
    One(usize),
}

/// A file and the object inside it that may hold settings.
type Place = (&'static str, Option<&'static str>);

/// Where the video settings may stand, best first.
const PLACES: [Place; 5] = [
    ("processor_config.json", Some("video_processor")),
    ("video_preprocessor_config.json", None),
    ("preprocessor_config.json", Some("video_processor")),
    ("preprocessor_config.json", None),
    ("processor_config.json", Some("image_processor")),
];

/// The same of settings for still images.
const IMAGE_PLACES: [Place; 2] =
    [("processor_config.json", Some("image_processor")), ("preprocessor_config.json", None)];

/// The settings of one place that has some.
struct Found {
    path: PathBuf,
    fields: Map<String, Value>,
    /// Whether they are meant for still images.
    for_images: bool,
}

impl Found {
    /// The first place that `fits`; the first of all where none does.
    fn search(dir: &Path, places: &[Place], fits: impl Fn(&Settings) -> bool) -> Result<Self> {
        let mut first = None;
        for place in places {
            let Some(found) = Self::at(dir, place)? else { continue };
            // What cannot be read is said of the best place, not passed over.
            if found.settings().map_or(true, |settings| fits(&settings)) {
                return Ok(found);
            }
            first.get_or_insert(found);
        }
        first.ok_or_else(|| {
            let mut files: Vec<_> = places.iter().map(|(file, _)| *file).collect();
            files.sort_unstable();
            files.dedup();
            let reason = format!("no processor settings; expected {}", files.join(" or "));
            EngineError::Checkpoint { path: dir.to_owned(), reason }
        })
    }

    /// What one place has.
    fn at(dir: &Path, (file, key): &Place) -> Result<Option<Self>> {
        let path = dir.join(file);
        if !path.exists() {
            return Ok(None);
        }
        let mut value: Value = parse_json(&path, &read_text(&path)?)?;
        if let Some(key) = key {
            match value.get_mut(key) {
                Some(inner) if inner.is_object() => value = inner.take(),
                _ => return Ok(None),
            }
        }
        let Value::Object(mut fields) = value else {
            let reason = "processor settings: expected an object".into();
            return Err(EngineError::Checkpoint { path, reason });
        };
        // A null stands for the class default.
        fields.retain(|_, field| !field.is_null());
        let for_images =
            *key == Some("image_processor") || fields.contains_key("image_processor_type");
        Ok(Some(Self { path, fields, for_images }))
    }

    fn settings(&self) -> std::result::Result<Settings, String> {
        let settings = serde_json::from_value::<Settings>(Value::Object(self.fields.clone()));
        let settings = settings.map_err(|e| format!("processor settings: {e}"))?;
        Ok(Settings { for_images: self.for_images, ..settings })
    }

    /// The settings read by `read`, whose faults are the file's.
    fn read<T>(self, read: impl FnOnce(&Settings) -> std::result::Result<T, String>) -> Result<T> {
        self.settings()
            .and_then(|settings| read(&settings))
            .map_err(|reason| EngineError::Checkpoint { path: self.path, reason })
    }
}

impl ProcessorConfig {
    /// Reads the settings for video from whichever file has them. `fits`: whether the vision tower can
    /// have been trained with some; `area`: the bounds of a frame's area that follow, checked against the
    /// tower's; `usual`: mean and deviation where the settings have none.
    pub(in crate::model) fn read(
        dir: &Path,
        usual: Option<([f64; 3], [f64; 3])>,
        fits: impl Fn(&Settings) -> bool,
        area: impl FnOnce(&Settings) -> std::result::Result<(usize, usize), String>,
    ) -> Result<Self> {
        let mut found = Found::search(dir, &PLACES, fits)?;
        for (name, usual) in usual.iter().flat_map(|(m, s)| [("image_mean", m), ("image_std", s)]) {
            found.fields.entry(name).or_insert_with(|| json!(usual));
        }
        found.read(|raw| {
            let area = area(raw)?;
            if !raw.do_resize || raw.do_center_crop == Some(true) {
                return Err("only resizing to `size` is supported: `do_resize` must be true and \
                            `do_center_crop` false"
                    .into());
            }
            raw.within(area)
        })
    }

    /// Reads the settings of a text-image pair's image processor, and the length that the shorter
    /// side of a picture gets if its middle is cut out; `None` if the picture is squeezed into the
    /// square instead. `side` is what the tower takes.
    pub(in crate::model) fn read_square(
        dir: &Path,
        kind: Kind,
        side: usize,
    ) -> Result<(Self, Option<usize>)> {
        let mut found = Found::search(dir, &IMAGE_PLACES, |_| true)?;
        if kind == Kind::Siglip {
            for name in ["image_mean", "image_std"] {
                found.fields.entry(name).or_insert_with(|| json!([0.5, 0.5, 0.5]));
            }
        }
        found.read(|raw| {
            if !raw.do_resize {
                return Err("`do_resize` must be true".into());
            }
            if raw.do_center_crop.unwrap_or(kind == Kind::Clip) {
                Ok((raw.within((side * side, side * side))?, Some(raw.edge(side)?)))
            } else {
                Ok((raw.within(raw.square(side)?)?, None))
            }
        })
    }
}

impl Settings {
    /// For pictures of an area within these bounds.
    fn within(
        &self,
        (min_pixels, max_pixels): (usize, usize),
    ) -> std::result::Result<ProcessorConfig, String> {
        let Some(resample) = filter(self.resample) else {
            return Err(format!(
                "`resample` is {}; supported: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic",
                self.resample
            ));
        };
        let channels = |values: &[f64]| <[f64; 3]>::try_from(values).ok();
        let (mean, std) = if self.do_normalize {
            match (channels(&self.image_mean), channels(&self.image_std)) {
                (Some(mean), Some(std)) => (mean, std),
                _ => return Err("`image_mean` and `image_std` need three numbers each".into()),
            }
        } else {
            ([0.0; 3], [1.0; 3])
        };
        if std.contains(&0.0) {
            return Err("`image_std` has a zero".into());
        }
        let rescale = if self.do_rescale { self.rescale_factor } else { 1.0 };
        Ok(ProcessorConfig { min_pixels, max_pixels, resample, rescale, mean, std })
    }

    /// The shorter side of a picture, of which the middle is cut out for a tower that takes `side`.
    fn edge(&self, side: usize) -> std::result::Result<usize, String> {
        let crop = match self.crop_size {
            None => 224,
            Some(Size::One(crop)) => crop,
            Some(Size::Sides { height, width }) if height == width => height,
            Some(_) => {
                return Err("`crop_size` must be a square: one number or equal \
                                   `height` and `width`"
                    .into());
            }
        };
        if crop != side {
            return Err(format!(
                "`crop_size` is {crop}, but the vision tower of config.json takes {side}"
            ));
        }
        let edge = match self.size {
            None => 224,
            Some(Size::One(edge) | Size::Edge { shortest_edge: edge }) => edge,
            Some(_) => {
                return Err("`size` must have a `shortest_edge` and nothing else where the \
                                   middle is cut out"
                    .into());
            }
        };
        if !(side..=MAX_EDGE).contains(&edge) {
            return Err(format!("`size` is {edge}; expected {side} (`crop_size`) to {MAX_EDGE}"));
        }
        Ok(edge)
    }

    /// The square of a tower whose position table is made for `image_size`.
    pub fn square(&self, image_size: usize) -> std::result::Result<(usize, usize), String> {
        let side = match self.size {
            None => 384,
            Some(Size::Sides { height, width }) if height == width => height,
            Some(Size::One(side)) => side,
            Some(Size::Sides { height, width }) => {
                return Err(format!("`size` is {height}x{width}; only squares are supported"));
            }
            Some(Size::Edges { .. } | Size::Edge { .. }) => {
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

    /// The bounds of a processor of Qwen2-VL's kind, checked against the tower's patches. `usual`
    /// where the file has none; what is meant for still images has the upper one of these too.
    pub fn area(
        &self,
        cells: &Cells,
        usual: (usize, usize),
    ) -> std::result::Result<(usize, usize), String> {
        for (name, found, expected) in [
            ("patch_size", self.patch_size, cells.patch_size),
            ("merge_size", self.merge_size, cells.merge),
            ("temporal_patch_size", self.temporal_patch_size, cells.frames_per_unit),
        ] {
            if found.is_some_and(|found| found != expected) {
                return Err(format!(
                    "`{name}` is {}, but the vision tower of config.json has {expected}",
                    found.unwrap_or_default()
                ));
            }
        }
        let (shortest, longest) = match self.size {
            None => usual,
            Some(Size::Edges { shortest_edge, longest_edge }) => (shortest_edge, longest_edge),
            Some(_) => {
                return Err("`size` needs `shortest_edge` and `longest_edge`, in pixels".into());
            }
        };
        let min_pixels = self.min_pixels.unwrap_or(shortest);
        let mut max_pixels = self.max_pixels.unwrap_or(longest);
        if self.for_images {
            max_pixels = max_pixels.min(usual.1);
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

/// How a tower of Qwen2-VL's kind cuts a video up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Side of a token in patches.
    pub merge: usize,
    /// Frames that become one unit.
    pub frames_per_unit: usize,
}

/// Beyond these a number is a damaged file.
const MAX_EDGE: usize = 1 << 13;
const MAX_PIXELS: usize = 1 << 26;

/// The resize filter of a processor's `resample` number (PIL's numbering).
fn filter(resample: u64) -> Option<ResizeAlg> {
    Some(match resample {
        0 => ResizeAlg::Nearest,
        1 => ResizeAlg::Convolution(FilterType::Lanczos3),
        2 => ResizeAlg::Convolution(FilterType::Bilinear),
        3 => ResizeAlg::Convolution(FilterType::CatmullRom),
        _ => return None,
    })
}
