// SPDX-License-Identifier: MPL-2.0
//! `streamkvqa-wall`.

fn main() {}
