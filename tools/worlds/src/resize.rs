// SPDX-License-Identifier: MPL-2.0
//! The bicubic resize of the Hugging Face processors.
//!
//! torchvision's antialiased bicubic works on bytes in two one-dimensional passes, width
//! first. Two passes of `fast_image_resize` give the same bytes; one two-dimensional call does not.
//! The typed calls keep the compiler from instantiating every pixel type.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

/// Resizes packed RGB to exactly `to`, ignoring the aspect ratio.
pub fn resize(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    let wide = pass(rgb, from, (to.0, from.1));
    pass(&wide, (to.0, from.1), to)
}

fn pass(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    if from == to {
        return rgb.to_vec();
    }
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let source = TypedImageRef::<U8x3>::from_buffer(from.0 as u32, from.1 as u32, rgb)
        .expect("the buffer holds width * height pixels");
    let mut bytes = vec![0; 3 * to.0 * to.1];
    let mut target = TypedImage::<U8x3>::from_buffer(to.0 as u32, to.1 as u32, &mut bytes)
        .expect("the buffer was made for the picture");
    Resizer::new().resize_typed(&source, &mut target, &options).expect("both pictures are RGB");
    bytes
}
