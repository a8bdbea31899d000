// SPDX-License-Identifier: MPL-2.0
//! Cameras, questions to them, and those that stand.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::error::{ApiError, ErrorBody};
use crate::config::StandingConfig;
use crate::hub::{self, AnswerId, Broker, Camera, Question, Source, Standing};

/// All that is so now.
#[derive(Serialize, ToSchema)]
pub struct WholeState {
    wall: WallInfo,
    cameras: Vec<Camera>,
    brokers: Vec<Broker>,
}

/// Which wall this is.
#[derive(Serialize, ToSchema)]
struct WallInfo {
    /// For people.
    name: String,
    /// Its name among machines.
    host: String,
    version: &'static str,
}

impl App {
    pub(super) fn whole(&self, state: hub::State) -> WholeState {
        let wall = WallInfo {
            name: self.name(),
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION"),
        };
        WholeState { wall, cameras: state.cameras, brokers: state.brokers }
    }
}

/// The wall, its cameras, and the systems that it is connected to.
#[utoipa::path(get, path = "/api/state", tag = "cameras", responses((status = 200, body = WholeState)))]
pub async fn state(State(app): State<Arc<App>>) -> Json<WholeState> {
    Json(app.whole(app.hub.state()))
}

/// A camera.
#[utoipa::path(get, path = "/api/cameras/{camera}", tag = "cameras", params(("camera" = String, Path)),
    responses((status = 200, body = Camera), (status = 404, body = ErrorBody)))]
pub async fn camera(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Camera>, ApiError> {
    app.hub.camera(&id).map(Json).ok_or_else(|| ApiError::no_camera(&id))
}

/// A question to cameras.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Their ids; `*`: all.
    cameras: Vec<String>,
    question: String,
    /// What stretch of video it is about; left out: all that is remembered.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// The answers that the model decides between; none: any words.
    #[serde(default)]
    choices: Vec<String>,
    /// `page` or `api`.
    source: Option<Source>,
}

/// What has become of a question.
#[derive(Serialize, ToSchema)]
pub struct AskedOf {
    asked: Vec<AskedCamera>,
    refused: Vec<RefusedCamera>,
}

#[derive(Serialize, ToSchema)]
struct AskedCamera {
    camera: String,
    /// Under which its words and its answer come as events.
    id: AnswerId,
}

#[derive(Serialize, ToSchema)]
struct RefusedCamera {
    camera: String,
    reason: String,
}

/// Asks cameras. Their words come as events `token`, the whole answers as events `answer`.
#[utoipa::path(post, path = "/api/ask", tag = "cameras", request_body = Ask,
    responses((status = 202, body = AskedOf), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub async fn ask(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: axum::http::HeaderMap,
    body: Result<Json<Ask>, JsonRejection>,
) -> Result<(StatusCode, Json<AskedOf>), ApiError> {
    let Json(ask) = body?;
    let mut cameras = ask.cameras;
    if cameras.iter().any(|camera| camera == "*") {
        cameras = app.hub.state().cameras.into_iter().map(|camera| camera.id).collect();
    }
    let mut seen = std::collections::BTreeSet::new();
    cameras.retain(|camera| seen.insert(camera.clone()));
    if cameras.is_empty() {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "cameras: expected the id of a camera, or \"*\"",
        ));
    }
    crate::config::check_question(&ask.question, &ask.choices)
        .map_err(|message| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message))?;
    app.limits.questions(from.ip(), cameras.len())?;
    let is_page = headers.contains_key("sec-fetch-site");
    let source = match ask.source {
        Some(Source::Page) => Source::Page,
        None if is_page => Source::Page,
        _ => Source::Api,
    };
    let question = Question {
        text: ask.question,
        from: ask.from,
        to: ask.to,
        source,
        choices: ask.choices,
        id: None,
    };
    let asked = cameras.iter().map(|camera| app.asks.ask(camera, question.clone()));
    let answers = futures_util::future::join_all(asked).await;
    let mut all = AskedOf { asked: Vec::new(), refused: Vec::new() };
    for (camera, answer) in cameras.into_iter().zip(answers) {
        match answer {
            Ok(id) => all.asked.push(AskedCamera { camera, id }),
            Err(refused) => all.refused.push(RefusedCamera { camera, reason: refused.to_string() }),
        }
    }
    Ok((StatusCode::ACCEPTED, Json(all)))
}

/// A part of a list.
#[derive(Serialize, ToSchema)]
pub struct Items<T> {
    pub items: Vec<T>,
    /// What goes into `before` for what follows; none: that was all.
    pub next: Option<String>,
}

/// The questions that stand at a camera.
#[utoipa::path(get, path = "/api/cameras/{camera}/standing", tag = "cameras", params(("camera" = String, Path)),
    responses((status = 200, body = Items<Standing>), (status = 404, body = ErrorBody)))]
pub async fn standing(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Items<Standing>>, ApiError> {
    let camera = app.hub.camera(&id).ok_or_else(|| ApiError::no_camera(&id))?;
    Ok(Json(Items { items: camera.standing, next: None }))
}

/// Has a question asked again and again. It stays over restarts.
#[utoipa::path(post, path = "/api/cameras/{camera}/standing", tag = "cameras", params(("camera" = String, Path)),
    request_body = StandingConfig, responses((status = 201, body = Standing), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody)))]
pub async fn add_standing(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Path(id): Path<String>,
    body: Result<Json<StandingConfig>, JsonRejection>,
) -> Result<(StatusCode, Json<Standing>), ApiError> {
    let Json(standing) = body?;
    app.limits.questions(from.ip(), 1)?;
    let standing = app.asks.add_standing(&id, standing).await?;
    Ok((StatusCode::CREATED, Json(standing)))
}

/// Ends a standing question.
#[utoipa::path(delete, path = "/api/cameras/{camera}/standing/{standing}", tag = "cameras",
    params(("camera" = String, Path), ("standing" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn remove_standing(
    State(app): State<Arc<App>>,
    Path((camera, standing)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.asks.remove_standing(&camera, &standing).await?;
    Ok(StatusCode::NO_CONTENT)
}
