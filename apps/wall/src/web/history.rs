// SPDX-License-Identifier: MPL-2.0
//! The past: pages of it, and all of it as a file.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::cameras::Items;
use super::error::{ApiError, on_disk};
use crate::history::{Entry, History, HistoryError, Kind, Query as Wanted};
use crate::hub::{AlertState, Evidence};

/// Entries of one page, where nothing is said, and at most.
const PAGE: (usize, usize) = (50, 500);
/// Characters of what is searched for.
const LONGEST: usize = 500;
/// Entries that an export reads at once.
const CHUNK: usize = 500;

/// What is looked for; all of it must hold.
#[derive(Deserialize, utoipa::IntoParams)]
pub struct Find {
    /// Words that question and answer hold, or words that begin so.
    q: Option<String>,
    /// A camera's id.
    camera: Option<String>,
    /// `answer` or `alert`; left out: both.
    #[param(value_type = Option<String>)]
    kind: Option<Kind>,
    /// Whether it is of a standing question; left out: both.
    standing: Option<bool>,
    /// Not before.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Not after.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// What `next` said, an entry's id, or a moment.
    before: Option<String>,
    /// At most so many; 50 where it is left out, 500 at most.
    limit: Option<usize>,
}

impl Find {
    fn wanted(self) -> Result<Wanted, ApiError> {
        let Find { q, camera, kind, standing, from, to, before, limit } = self;
        let limit = Some(limit.unwrap_or(PAGE.0).clamp(1, PAGE.1));
        if q.as_ref().is_some_and(|words| words.chars().count() > LONGEST) {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("q: expected no more than {LONGEST} characters"),
            ));
        }
        let text = |field: Option<String>| field.filter(|text| !text.trim().is_empty());
        Ok(Wanted {
            q: text(q),
            camera: text(camera),
            kind,
            standing,
            from,
            to,
            before: text(before),
            limit,
        })
    }
}

async fn page(app: &App, wanted: Wanted) -> Result<Items<Entry>, ApiError> {
    let history = app.history.clone();
    let limit = wanted.limit.unwrap_or(PAGE.0);
    let items = on_disk(move || history.find(&wanted)).await?;
    let next = items.last().filter(|_| items.len() >= limit).map(|last| last.id().to_owned());
    Ok(Items { items, next })
}

/// Questions, answers and alerts, the newest first.
#[utoipa::path(get, path = "/api/history", tag = "history", params(Find), responses((status = 200, body = Items<Entry>)))]
pub async fn find(
    State(app): State<Arc<App>>,
    query: Result<Query<Find>, QueryRejection>,
) -> Result<Json<Items<Entry>>, ApiError> {
    page(&app, query?.0.wanted()?).await.map(Json)
}

/// A camera's answers, the newest first.
#[utoipa::path(get, path = "/api/cameras/{camera}/answers", tag = "history",
    params(("camera" = String, Path), ("standing" = Option<bool>, Query), ("before" = Option<String>, Query), ("limit" = Option<usize>, Query)),
    responses((status = 200, body = Items<Entry>)))]
pub async fn answers(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<Find>, QueryRejection>,
) -> Result<Json<Items<Entry>>, ApiError> {
    let wanted = Wanted { camera: Some(id), kind: Some(Kind::Answer), ..query?.0.wanted()? };
    page(&app, wanted).await.map(Json)
}

/// All that is found, as one JSON list.
#[utoipa::path(get, path = "/api/history.json", tag = "history", params(Find),
    responses((status = 200, content_type = "application/json")))]
pub async fn json(
    State(app): State<Arc<App>>,
    query: Result<Query<Find>, QueryRejection>,
) -> Result<Response, ApiError> {
    let mut is_first = true;
    let write = move |entries: &[Entry], is_last: bool| {
        let mut text = Vec::new();
        for entry in entries {
            text.extend_from_slice(if std::mem::take(&mut is_first) { b"[\n" } else { b",\n" });
            serde_json::to_writer(&mut text, entry)?;
        }
        if is_last {
            text.extend_from_slice(if is_first { b"[]\n" } else { b"\n]\n" });
        }
        Ok(text)
    };
    export(&app, query?.0, "application/json", "history.json", write)
}

/// All that is found, as a table.
#[utoipa::path(get, path = "/api/history.csv", tag = "history", params(Find),
    responses((status = 200, content_type = "text/csv")))]
pub async fn csv(
    State(app): State<Arc<App>>,
    query: Result<Query<Find>, QueryRejection>,
) -> Result<Response, ApiError> {
    let mut is_first = true;
    let write = move |entries: &[Entry], _: bool| {
        let mut table = csv::Writer::from_writer(Vec::new());
        let said = |error: csv::Error| std::io::Error::other(error);
        if std::mem::take(&mut is_first) {
            table.write_record(COLUMNS).map_err(said)?;
        }
        for entry in entries {
            table.write_record(row(entry)).map_err(said)?;
        }
        table.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
    };
    export(&app, query?.0, "text/csv; charset=utf-8", "history.csv", write)
}

const COLUMNS: [&str; 12] = [
    "kind",
    "id",
    "camera",
    "at",
    "question",
    "answer",
    "confidence",
    "source",
    "standing",
    "state",
    "evidence",
    "error",
];

fn row(entry: &Entry) -> [String; 12] {
    let share = |value: Option<f32>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
    match entry.clone() {
        Entry::Answer(answer) => [
            "answer".into(),
            answer.id,
            answer.camera,
            answer.answered.to_string(),
            plain(answer.question),
            plain(answer.text),
            share(answer.confidence),
            serde_json::to_value(answer.source)
                .ok()
                .and_then(|name| name.as_str().map(Into::into))
                .unwrap_or_default(),
            answer.standing.unwrap_or_default(),
            String::new(),
            stretches(&answer.evidence),
            plain(answer.error.unwrap_or_default()),
        ],
        Entry::Alert(alert) => [
            "alert".into(),
            alert.id,
            alert.camera,
            alert.at.to_string(),
            plain(alert.question),
            plain(alert.answer),
            share(alert.confidence),
            "standing".into(),
            alert.standing,
            if alert.state == AlertState::On { "on".into() } else { "off".into() },
            stretches(&alert.evidence),
            String::new(),
        ],
    }
}

fn stretches(evidence: &[Evidence]) -> String {
    let stretches: Vec<String> =
        evidence.iter().map(|stretch| format!("{}/{}", stretch.from, stretch.to)).collect();
    stretches.join(" ")
}

/// Spreadsheets take a text that begins so for a formula, and run it.
fn plain(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

/// Reads a chunk at a time, as the connection takes it.
fn export(
    app: &Arc<App>,
    find: Find,
    kind: &'static str,
    name: &str,
    write: impl FnMut(&[Entry], bool) -> std::io::Result<Vec<u8>> + Send + 'static,
) -> Result<Response, ApiError> {
    let limit = find.limit;
    let wanted = Wanted { limit: Some(CHUNK), ..find.wanted()? };
    let export = Export {
        history: app.history.clone(),
        wanted,
        left: limit,
        write,
        permit: app.limits.stream()?,
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(export.chunks())).into_response())
}

struct Export<W> {
    history: History,
    wanted: Wanted,
    left: Option<usize>,
    write: W,
    permit: OwnedSemaphorePermit,
}

impl<W: FnMut(&[Entry], bool) -> std::io::Result<Vec<u8>> + Send + 'static> Export<W> {
    fn chunks(self) -> impl Stream<Item = std::io::Result<Bytes>> {
        stream::unfold(Some(self), |export| async move {
            let mut export = export?;
            // An export that ends in the middle is a broken connection, not a shorter file.
            match tokio::task::spawn_blocking(move || {
                export.chunk().map(|(bytes, more)| (bytes, more.then_some(export)))
            })
            .await
            {
                Ok(Ok((bytes, export))) => Some((Ok(bytes.into()), export)),
                Ok(Err(error)) => Some((Err(std::io::Error::other(error)), None)),
                Err(error) => Some((Err(std::io::Error::other(error)), None)),
            }
        })
    }

    fn chunk(&mut self) -> Result<(Vec<u8>, bool), Box<dyn std::error::Error + Send + Sync>> {
        let size = self.left.unwrap_or(CHUNK).min(CHUNK);
        self.wanted.limit = Some(size);
        let entries: Vec<Entry> =
            self.history.find(&self.wanted).map_err(Box::<HistoryError>::new)?;
        self.left = self.left.map(|left| left.saturating_sub(entries.len()));
        let is_last = entries.len() < size || self.left == Some(0);
        self.wanted.before = entries.last().map(|last| last.id().to_owned());
        let bytes = (self.write)(&entries, is_last)?;
        let _ = &self.permit;
        Ok((bytes, !is_last))
    }
}
