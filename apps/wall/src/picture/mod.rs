// SPDX-License-Identifier: MPL-2.0
//! Pictures of cameras: live ones, and those kept by time.

pub mod whep;
