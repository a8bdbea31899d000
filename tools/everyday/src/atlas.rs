// SPDX-License-Identifier: MPL-2.0
//! The drawings, as `atlas.sh` wrote them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::noun::Noun;
use crate::words::Style;

/// Premultiplied RGBA.
type Pixel = [u8; 4];

/// A drawing in one size.
#[derive(Debug)]
struct Level {
    width: usize,
    height: usize,
    pixels: Vec<Pixel>,
}

/// A drawing in its own size, half of it, a quarter of it.
#[derive(Debug)]
pub struct Sprite {
    levels: Vec<Level>,
}

/// All drawings.
#[derive(Debug)]
pub struct Atlas {
    sprites: HashMap<(Noun, Style), Sprite>,
}

#[derive(Deserialize)]
struct Head {
    sprites: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    noun: String,
    style: Style,
    width: usize,
    height: usize,
    offset: usize,
}

impl Atlas {
    /// Where the atlas is unless someone says otherwise: `$EVERYDAY_ATLAS`, or `target/everyday` of
    /// this repository.
    pub fn default_path() -> PathBuf {
        std::env::var_os("EVERYDAY_ATLAS").map_or_else(
            || {
                PathBuf::from(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/../../target/everyday/atlas.bin"
                ))
            },
            PathBuf::from,
        )
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path).map_err(|error| {
            let hint = "tools/everyday/atlas.sh makes it, $EVERYDAY_ATLAS and --atlas name another";
            io::Error::new(error.kind(), format!("{}: {error}; {hint}", path.display()))
        })?;
        Self::from_bytes(&bytes).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        })
    }

    /// An atlas in memory: what is in the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.iter().position(|&byte| byte == b'\n').ok_or("no first line")?;
        let (head, pixels) = (&bytes[..end], &bytes[end + 1..]);
        let head: Head = serde_json::from_slice(head).map_err(|error| error.to_string())?;
        let mut sprites = HashMap::new();
        for entry in head.sprites {
            // An atlas may be older than the table.
            let Some(noun) = Noun::named(&entry.noun) else { continue };
            let pixels = entry
                .width
                .checked_mul(entry.height)
                .and_then(|area| area.checked_mul(4))
                .and_then(|length| entry.offset.checked_add(length))
                .and_then(|end| pixels.get(entry.offset..end))
                .filter(|pixels| !pixels.is_empty())
                .ok_or_else(|| format!("the drawing of {} is not in it", entry.noun))?;
            sprites.insert((noun, entry.style), Sprite::new(entry.width, entry.height, pixels));
        }
        Ok(Self { sprites })
    }

    /// The drawing of `noun`, in another style where there is none in `style`.
    pub fn sprite(&self, noun: Noun, style: Style) -> Option<&Sprite> {
        self.sprites
            .get(&(noun, style))
            .or_else(|| Style::TRAINED.iter().find_map(|&style| self.sprites.get(&(noun, style))))
    }
}

impl Sprite {
    fn new(width: usize, height: usize, rgba: &[u8]) -> Self {
        let premultiply = |pixel: &[u8]| {
            let alpha = u32::from(pixel[3]);
            let color = |byte: u8| ((u32::from(byte) * alpha + 127) / 255) as u8;
            [color(pixel[0]), color(pixel[1]), color(pixel[2]), pixel[3]]
        };
        let pixels = rgba.chunks_exact(4).map(premultiply).collect();
        let mut levels = vec![Level { width, height, pixels }];
        while let Some(last) = levels.last()
            && last.width.min(last.height) > 12
        {
            levels.push(last.half());
        }
        Self { levels }
    }

    /// Width and height relative to the longer of them.
    pub fn shape(&self) -> (f32, f32) {
        let (width, height) = (self.levels[0].width as f32, self.levels[0].height as f32);
        let longer = width.max(height);
        (width / longer, height / longer)
    }

    /// What paints `width` x `height` pixels without skipping any of the drawing's.
    pub fn sampler(&self, width: f32, height: f32) -> Sampler<'_> {
        let fits = |level: &&Level| level.width as f32 >= width && level.height as f32 >= height;
        let level = self.levels.iter().rev().find(fits).unwrap_or(&self.levels[0]);
        Sampler { level, scale: (level.width as f32, level.height as f32) }
    }
}

impl Level {
    fn half(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let at = |x: usize, y: usize| {
            self.pixels[y.min(self.height - 1) * self.width + x.min(self.width - 1)]
        };
        let mean = |x: usize, y: usize| {
            let four = [
                at(2 * x, 2 * y),
                at(2 * x + 1, 2 * y),
                at(2 * x, 2 * y + 1),
                at(2 * x + 1, 2 * y + 1),
            ];
            std::array::from_fn(|channel| {
                (four.iter().map(|pixel| u32::from(pixel[channel])).sum::<u32>() / 4) as u8
            })
        };
        let pixels = (0..width * height).map(|index| mean(index % width, index / width)).collect();
        Self { width, height, pixels }
    }
}

/// A drawing in the size that suits the picture.
pub struct Sampler<'a> {
    level: &'a Level,
    scale: (f32, f32),
}

impl Sampler<'_> {
    /// The colour at `u`, `v` of the drawing (0 to 1), premultiplied with the alpha beside it.
    pub fn at(&self, u: f32, v: f32) -> [f32; 4] {
        let Level { width, height, pixels } = self.level;
        let x = (u * self.scale.0 - 0.5).clamp(0.0, (width - 1) as f32);
        let y = (v * self.scale.1 - 0.5).clamp(0.0, (height - 1) as f32);
        let (left, top) = (x as usize, y as usize);
        let (right, low) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let [a, b] = [top, low].map(|row| {
            let (a, b) = (pixels[row * width + left], pixels[row * width + right]);
            std::array::from_fn::<f32, 4, _>(|i| {
                f32::from(a[i]) + fx * (f32::from(b[i]) - f32::from(a[i]))
            })
        });
        std::array::from_fn(|i| a[i] + fy * (b[i] - a[i]))
    }
}
