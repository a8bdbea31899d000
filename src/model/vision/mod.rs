// SPDX-License-Identifier: MPL-2.0
//! From pixels to the tokens the decoder reads: the vision tower and the projector.

pub mod projector;
pub mod siglip;
