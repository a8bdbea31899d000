// SPDX-License-Identifier: MPL-2.0
//! Refusals: a status, what is wrong, and what helps.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
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

/// The disk is read on threads that may wait for it.
pub async fn on_disk<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??)
}
