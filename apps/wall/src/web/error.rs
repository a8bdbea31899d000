// SPDX-License-Identifier: MPL-2.0
//! Refusals: a status, what is wrong, and what helps.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::history::HistoryError;
use crate::hub::Refused;

/// Why a request is not served.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    pub remedy: Option<String>,
}

/// An error on the wire.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorText,
}

#[derive(Serialize, ToSchema)]
struct ErrorText {
    /// What is wrong.
    message: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), remedy: None }
    }

    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        ApiError { remedy: Some(remedy.into()), ..self }
    }

    pub fn no_camera(id: &str) -> Self {
        Refused::NoCamera(id.to_owned()).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError { status, message, remedy } = self;
        (status, Json(ErrorBody { error: ErrorText { message, remedy } })).into_response()
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::NoCamera(_) | Refused::NotFound(_) => StatusCode::NOT_FOUND,
            Refused::NotNow(_) => StatusCode::CONFLICT,
            Refused::Bad(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = ApiError::new(status, refused.to_string());
        match refused {
            Refused::NoCamera(_) => error.remedy("GET /api/state lists the cameras"),
            _ => error,
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        ApiError::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        ApiError::new(rejection.status(), rejection.body_text())
    }
}

/// What the libraries refuse by themselves, in the form of all errors.
pub async fn in_form(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let is_text = kind.is_none_or(|kind| kind.starts_with("text/plain"));
    if !is_error || !is_text {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let plain = parts.status.canonical_reason().unwrap_or("it is refused");
    let message = if said.trim().is_empty() { plain } else { said.trim() };
    for gone in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(gone);
    }
    let error = ApiError::new(parts.status, message).into_response();
    let (form, body) = error.into_parts();
    parts.headers.extend(form.headers);
    Response::from_parts(parts, body)
}

/// The disk is read on threads that may wait for it.
pub async fn on_disk<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??)
}
