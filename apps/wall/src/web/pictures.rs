// SPDX-License-Identifier: MPL-2.0
//! Pictures of now and of the past.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;

use super::App;
use super::cameras::Items;
use super::error::{ApiError, ErrorBody, on_disk};
use crate::history::Moment;
use crate::picture::{LivePicture, Picture};

const BOUNDARY: &str = "picture";

fn live(app: &App, id: &str) -> Result<LivePicture, ApiError> {
    app.cameras.live(id).ok_or_else(|| match app.hub.camera(id) {
        Some(camera) => ApiError::new(
            StatusCode::CONFLICT,
            format!("the machine {} watches this camera", camera.host),
        ),
        None => ApiError::no_camera(id),
    })
}

/// The newest picture.
#[utoipa::path(get, path = "/api/cameras/{camera}/live.jpg", tag = "pictures", params(("camera" = String, Path)),
    responses((status = 200, content_type = "image/jpeg"), (status = 304), (status = 404, body = ErrorBody)))]
pub async fn newest(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let live = live(&app, &id)?;
    let picture = live
        .newest()
        .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "there has been no picture yet"))?;
    let tag = format!("\"{}\"", picture.at.as_millisecond());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let always = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".into())];
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, always).into_response());
    }
    let jpeg = Bytes::from_owner(picture.jpeg);
    Ok((always, [(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response())
}

/// Every picture that the connection is fast enough for, as `multipart/x-mixed-replace`.
#[utoipa::path(get, path = "/api/cameras/{camera}/live.mjpeg", tag = "pictures", params(("camera" = String, Path)),
    responses((status = 200, content_type = "multipart/x-mixed-replace"), (status = 404, body = ErrorBody)))]
pub async fn mjpeg(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let permit = app.limits.stream()?;
    let mut view = live(&app, &id)?.view();
    // What there is already is the first.
    view.mark_changed();
    let pictures = stream::unfold((view, permit), |(mut view, permit)| async move {
        loop {
            // The camera has left the wall.
            view.changed().await.ok()?;
            let picture = view.borrow_and_update().clone();
            if let Some(picture) = picture {
                return Some((Ok::<_, Infallible>(part(&picture)), (view, permit)));
            }
        }
    });
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store".into())];
    Ok((headers, Body::from_stream(pictures)).into_response())
}

fn part(picture: &Picture) -> Bytes {
    let length = picture.jpeg.len();
    let head =
        format!("--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), &picture.jpeg, b"\r\n"].concat().into()
}

/// Around when.
#[derive(Deserialize, utoipa::IntoParams)]
pub struct Around {
    /// The middle; left out: now.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// Seconds to both sides; left out: 30.
    around: Option<f64>,
}

/// The pictures around a moment.
#[utoipa::path(get, path = "/api/cameras/{camera}/moments", tag = "pictures",
    params(("camera" = String, Path), Around), responses((status = 200, body = Items<Moment>)))]
pub async fn moments(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<Around>, QueryRejection>,
) -> Result<Json<Items<Moment>>, ApiError> {
    let Query(Around { at, around }) = query?;
    let (at, around) = (at.unwrap_or_else(Timestamp::now), around.unwrap_or(30.0));
    if !(0.0..=86_400.0).contains(&around) {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "around: expected seconds from 0 to 86400",
        ));
    }
    let history = app.history.clone();
    let items = on_disk(move || history.moments(&id, at, around)).await?;
    Ok(Json(Items { items, next: None }))
}

/// A picture of the past.
#[utoipa::path(get, path = "/api/pictures/{picture}", tag = "pictures",
    params(("picture" = String, Path, description = "what evidence and moments name, and .jpg")),
    responses((status = 200, content_type = "image/jpeg"), (status = 404, body = ErrorBody)))]
pub async fn picture(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let key = name.strip_suffix(".jpg").unwrap_or(&name).to_owned();
    let (history, wanted) = (app.history.clone(), key.clone());
    let picture = match on_disk(move || history.picture(&wanted)).await? {
        Some(picture) => Some(picture),
        None => app.asks.picture(&key).await,
    };
    let gone = || {
        let error = ApiError::new(
            StatusCode::NOT_FOUND,
            "there is no such picture, or it is no longer kept",
        );
        error.remedy(
            "max_picture_bytes and keep_days in section [history] say how long pictures are kept",
        )
    };
    let picture = picture.ok_or_else(gone)?;
    // A moment of the past does not change.
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        (header::CACHE_CONTROL, "private, max-age=86400, immutable"),
    ];
    Ok((headers, picture).into_response())
}
