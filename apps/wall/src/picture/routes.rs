// SPDX-License-Identifier: MPL-2.0
//! Live pictures over HTTP: those of a whole wall in one answer, and WebRTC.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::many;
use super::whep::{self, Fault, Sessions};
use crate::cameras::Cameras;

/// Walls of pictures that are looked at at a time.
const MOST: usize = 256;

struct Pictures {
    cameras: Cameras,
    sessions: Sessions,
    room: Arc<Semaphore>,
}

/// `GET /api/live`, `POST /api/cameras/{id}/whep` and `DELETE` of the `Location` that it gave.
pub fn router(cameras: Cameras) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(open))
        .routes(routes!(close))
        .layer(DefaultBodyLimit::max(whep::LONGEST_OFFER))
        .with_state(Arc::new(Pictures {
            cameras,
            sessions: Sessions::default(),
            room: Arc::new(Semaphore::new(MOST)),
        }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Ids with commas between.
    cameras: String,
}

/// The newest pictures of several cameras over one connection, each camera's twice a second at most: parts of
/// `multipart/mixed` whose header `x-camera` is the id. Cameras that have no pictures here are left out.
#[utoipa::path(get, path = "/api/live", tag = "pictures", params(Wanted),
    responses((status = 200, content_type = many::CONTENT_TYPE), (status = 404, description = "none of them is watched here"),
    (status = 503, description = "too many pages look at pictures")))]
async fn live(
    State(pictures): State<Arc<Pictures>>,
    Query(Wanted { cameras }): Query<Wanted>,
) -> Response {
    let wanted = cameras.split(',').filter(|id| !id.is_empty());
    let views: Vec<_> =
        wanted.filter_map(|id| Some((id.to_owned(), pictures.cameras.live(id)?.view()))).collect();
    if views.is_empty() {
        return refusal(StatusCode::NOT_FOUND, "none of these cameras is watched here");
    }
    let Ok(room) = pictures.room.clone().try_acquire_owned() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "too many pages look at pictures");
    };
    let headers = [(header::CONTENT_TYPE, many::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    let parts = many::stream(views).map(move |part| {
        // Held for as long as the stream is.
        let _ = &room;
        part
    });
    (headers, Body::from_stream(parts)).into_response()
}

/// Live video by WebRTC: WHEP takes a browser's offer and gives the answer, and where the session ends.
#[utoipa::path(post, path = "/api/cameras/{camera}/whep", tag = "pictures", params(("camera" = String, Path)),
    request_body(content = String, content_type = whep::CONTENT_TYPE, description = "an SDP offer that takes video"),
    responses((status = 201, content_type = whep::CONTENT_TYPE, description = "an SDP answer",
    headers(("Location" = String, description = "what to DELETE at the end, relative to this address"))),
    (status = 400, description = "no such offer"), (status = 404, description = "no video here, or no WebRTC"),
    (status = 415, description = "it is no application/sdp"), (status = 503, description = "too many pages look")))]
async fn open(
    State(pictures): State<Arc<Pictures>>,
    Path(camera): Path<String>,
    headers: HeaderMap,
    offer: Bytes,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(whep::CONTENT_TYPE)) {
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an offer is application/sdp");
    }
    if !whep::is_available() {
        return refusal(StatusCode::NOT_FOUND, &Fault::Missing.to_string());
    }
    let Some(video) = pictures.cameras.video(&camera) else {
        return refusal(StatusCode::NOT_FOUND, "this camera has no video here now");
    };
    let Ok(offer) = str::from_utf8(&offer) else {
        return refusal(StatusCode::BAD_REQUEST, "an offer is text");
    };
    match pictures.sessions.open(&camera, &video.pipeline, &video.tee, offer).await {
        Ok(opened) => {
            // Relative to the address asked, so that a proxy may put the wall under a path.
            let location = format!("whep/{}", opened.id);
            let headers = [
                (header::CONTENT_TYPE, whep::CONTENT_TYPE.to_owned()),
                (header::LOCATION, location),
                (header::CACHE_CONTROL, "no-store".to_owned()),
            ];
            (StatusCode::CREATED, headers, opened.answer).into_response()
        }
        Err(fault) => {
            let status = match fault {
                Fault::Missing => StatusCode::NOT_FOUND,
                Fault::TooMany => StatusCode::SERVICE_UNAVAILABLE,
                Fault::Offer(_) => StatusCode::BAD_REQUEST,
                Fault::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refusal(status, &fault.to_string())
        }
    }
}

/// Ends a session of WHEP.
#[utoipa::path(delete, path = "/api/cameras/{camera}/whep/{session}", tag = "pictures",
    params(("camera" = String, Path), ("session" = String, Path)),
    responses((status = 204), (status = 404, description = "there is no such session")))]
async fn close(
    State(pictures): State<Arc<Pictures>>,
    Path((camera, session)): Path<(String, String)>,
) -> Response {
    if pictures.sessions.close(&camera, &session) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        refusal(StatusCode::NOT_FOUND, "there is no such session")
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": { "message": message } }))).into_response()
}
