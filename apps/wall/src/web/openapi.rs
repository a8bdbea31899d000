// SPDX-License-Identifier: MPL-2.0
//! The API's description, for programs and for people.

use axum::Json;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;

use super::{access, cameras, events, history, openai, pictures};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "The wall",
        description = "Cameras, questions to them, and what was. Times are RFC 3339, UTC. Every \
        error is {\"error\": {\"message\", \"remedy\"}}. Where the configuration has tokens, requests carry one: \
        Authorization: Bearer TOKEN, or the cookie of POST /api/login."
    ),
    paths(
        cameras::state,
        events::events,
        cameras::ask,
        cameras::camera,
        cameras::standing,
        cameras::add_standing,
        cameras::remove_standing,
        pictures::newest,
        pictures::mjpeg,
        pictures::moments,
        pictures::picture,
        history::find,
        history::answers,
        history::json,
        history::csv,
        openai::models,
        openai::complete,
        access::login
    )
)]
struct Api;

/// The description.
pub async fn json() -> impl IntoResponse {
    Json(Api::openapi())
}

/// The same for people.
pub async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("docs.html"))
}

pub async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("docs.js"))
}
