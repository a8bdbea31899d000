// SPDX-License-Identifier: MPL-2.0
//! Pictures of cameras.

mod live;
pub mod whep;

use axum::Router;

use crate::cameras::Cameras;

pub use live::{LivePicture, Picture};

/// What is served of live video beside single pictures.
pub fn router(_cameras: Cameras) -> Router {
    Router::new()
}
