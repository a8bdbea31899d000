// SPDX-License-Identifier: MPL-2.0
//! Pictures of cameras.

mod live;
pub mod many;
mod routes;
pub mod whep;

pub use live::{LivePicture, Picture};
pub use routes::router;
