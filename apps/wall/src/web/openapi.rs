// SPDX-License-Identifier: MPL-2.0
//! The API's description, for programs and for people.

use std::sync::Arc;

use axum::Json;
use axum::extract::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(info(
    title = "The wall",
    description = "Cameras, questions to them, and what was. Times are RFC 3339, UTC. Every \
        error is {\"error\": {\"message\", \"remedy\"}}. Where the configuration has tokens, requests carry one: \
        Authorization: Bearer TOKEN, or the cookie of POST /api/login."
))]
struct About;

/// What the description begins with; each route adds itself.
pub fn about() -> utoipa::openapi::OpenApi {
    About::openapi()
}

/// What is described.
pub type Description = Extension<Arc<utoipa::openapi::OpenApi>>;

/// This description, for programs.
#[utoipa::path(get, path = "/api/openapi.json", tag = "description",
    responses((status = 200, content_type = "application/json")))]
pub async fn json(Extension(api): Description) -> impl IntoResponse {
    Json(&*api).into_response()
}

/// The same for people.
#[utoipa::path(get, path = "/api/docs", tag = "description",
    responses((status = 200, content_type = "text/html")))]
pub async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("docs.html"))
}

/// What shows it to them.
#[utoipa::path(get, path = "/api/docs.js", tag = "description",
    responses((status = 200, content_type = "text/javascript")))]
pub async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("docs.js"))
}
