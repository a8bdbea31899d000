// SPDX-License-Identifier: MPL-2.0
//! The bicubic resize of the Hugging Face processors.
//!
//! torchvision's antialiased bicubic works on bytes in two one-dimensional passes, width
//! first. Two passes of `fast_image_resize` give the same bytes; one two-dimensional call does not.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Resizes packed RGB to exactly `to`, ignoring the aspect ratio.
pub fn resize(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    let wide = pass(rgb, from, (to.0, from.1));
    pass(&wide, (to.0, from.1), to)
}

fn pass(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return rgb.to_vec();
    }
    let options =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let source = ImageRef::new(from.0 as u32, from.1 as u32, rgb, PixelType::U8x3)
        .expect("the buffer holds width * height pixels");
    let mut target = Image::new(to.0 as u32, to.1 as u32, PixelType::U8x3);
    Resizer::new()
        .resize(&source, &mut target, &options)
        .expect("both pictures are U8x3");
    target.into_vec()
}
