// SPDX-License-Identifier: MPL-2.0
//! The page and the API.

mod files;

use axum::Router;
use axum::routing::get;

/// All that is served.
pub fn router() -> Router {
    Router::new().route("/", get(files::index)).route("/page/{*path}", get(files::file))
}
