// SPDX-License-Identifier: MPL-2.0
//! The same for clients of OpenAI's API: each camera is a model, the last message of the user is the question.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::sse::{Event as Sent, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;
use crate::hub::{AnswerId, Event, Question, Receiver, Refused, Source, new_id};

/// For a whole answer.
const PATIENCE: Duration = Duration::from_secs(300);

/// An error in OpenAI's form.
#[derive(Debug)]
pub struct OpenAiError(ApiError);

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let status = self.0.status;
        (status, Json(error_body(&self.0))).into_response()
    }
}

fn error_body(error: &ApiError) -> Value {
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    let code = match error.status {
        StatusCode::NOT_FOUND => Some("model_not_found"),
        StatusCode::TOO_MANY_REQUESTS => Some("rate_limit_exceeded"),
        _ => None,
    };
    let remedy = error.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    json!({"error": {"message": format!("{}{remedy}", error.message), "type": kind, "param": null, "code": code}})
}

impl<E: Into<ApiError>> From<E> for OpenAiError {
    fn from(error: E) -> Self {
        OpenAiError(error.into())
    }
}

/// The cameras.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, description = "each camera is a model")))]
pub async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let model = |camera: &crate::hub::Camera| json!({"id": camera.id, "object": "model", "created": camera.since.as_second(), "owned_by": camera.host});
    let models: Vec<Value> = app.hub.state().cameras.iter().map(model).collect();
    Json(json!({"object": "list", "data": models}))
}

/// What is understood of a request; the rest is ignored.
#[derive(Deserialize, ToSchema)]
pub struct Completion {
    /// A camera's id.
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize, ToSchema)]
struct Message {
    role: String,
    /// A text, or a list of parts of which those of type `text` count.
    #[schema(value_type = Object)]
    content: Value,
}

impl Message {
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
                texts.collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        }
    }
}

/// Asks a camera.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body = Completion,
    responses((status = 200, description = "a completion, or its chunks as server-sent events with `stream`"),
    (status = 404, description = "no such camera")))]
pub async fn complete(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Json<Completion>, JsonRejection>,
) -> Result<Response, OpenAiError> {
    let Json(request) = body.map_err(ApiError::from)?;
    let question =
        request.messages.iter().rev().find(|message| message.role == "user").map(Message::text);
    let question = question.filter(|question| !question.trim().is_empty()).ok_or_else(|| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "messages: expected a message of role \"user\" with a text",
        )
    })?;
    app.limits.questions(from.ip(), 1)?;
    // Before it is asked, so that no word is missed.
    let receiver = app.hub.subscribe();
    let id = new_id();
    let question = Question {
        text: question,
        source: Source::Api,
        id: Some(id.clone()),
        ..Question::default()
    };
    app.asks.ask(&request.model, question).await.map_err(|refused| match refused {
        // A camera that does not play is no fault of the request.
        Refused::NotNow(_) => {
            ApiError { status: StatusCode::SERVICE_UNAVAILABLE, ..refused.into() }
        }
        other => other.into(),
    })?;
    let reply = Reply {
        receiver,
        id,
        model: request.model,
        created: Timestamp::now().as_second(),
        until: Instant::now() + PATIENCE,
        said: String::new(),
    };
    if request.stream { Ok(reply.stream().into_response()) } else { reply.whole().await }
}

struct Reply {
    receiver: Receiver,
    id: AnswerId,
    model: String,
    created: i64,
    until: Instant,
    said: String,
}

/// What comes next of an answer.
enum Next {
    Text(String),
    End(Result<String, ApiError>),
}

impl Reply {
    async fn next(&mut self) -> Next {
        loop {
            let Ok(event) = tokio::time::timeout_at(self.until, self.receiver.recv()).await else {
                return Next::End(Err(ApiError::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the camera has not answered in time",
                )));
            };
            match event.as_deref() {
                Ok(Event::Token { answer, text, .. }) if *answer == self.id => {
                    return Next::Text(text.clone());
                }
                Ok(Event::Answer(answer)) if answer.id == self.id => {
                    return Next::End(match &answer.error {
                        None => Ok(answer.text.clone()),
                        Some(why) => {
                            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why.clone()))
                        }
                    });
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.receiver = self.receiver.resubscribe(),
                Err(RecvError::Closed) => {
                    return Next::End(Err(ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the wall is being stopped",
                    )));
                }
            }
        }
    }

    async fn whole(mut self) -> Result<Response, OpenAiError> {
        loop {
            if let Next::End(text) = self.next().await {
                let text = text?;
                let message = json!({"role": "assistant", "content": text, "refusal": null});
                let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
                let usage = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
                let body = json!({
                    "id": format!("chatcmpl-{}", self.id),
                    "object": "chat.completion",
                    "created": self.created,
                    "model": self.model,
                    "choices": [choice],
                    "usage": usage,
                });
                return Ok(Json(body).into_response());
            }
        }
    }

    fn stream(self) -> impl IntoResponse {
        let first = self.chunk(json!({"role": "assistant", "content": ""}), None);
        let rest = stream::unfold(
            (Some(self), Vec::new()),
            |(mut reply, mut ready): (Option<Reply>, Vec<Sent>)| async move {
                loop {
                    if !ready.is_empty() {
                        return Some((Ok::<_, Infallible>(ready.remove(0)), (reply, ready)));
                    }
                    let mut at_work = reply.take()?;
                    match at_work.next().await {
                        Next::Text(text) => {
                            at_work.said.push_str(&text);
                            ready.push(at_work.chunk(json!({"content": text}), None));
                            reply = Some(at_work);
                        }
                        Next::End(Ok(text)) => {
                            // Whatever has not come word by word.
                            if let Some(rest) = text
                                .strip_prefix(at_work.said.trim_start())
                                .filter(|rest| !rest.is_empty())
                            {
                                ready.push(at_work.chunk(json!({"content": rest}), None));
                            }
                            ready.push(at_work.chunk(json!({}), Some("stop")));
                            ready.push(Sent::default().data("[DONE]"));
                        }
                        Next::End(Err(error)) => {
                            ready.push(Sent::default().data(error_body(&error).to_string()));
                            ready.push(Sent::default().data("[DONE]"));
                        }
                    }
                }
            },
        );
        let first = stream::once(async { Ok::<_, Infallible>(first) });
        Sse::new(futures_util::StreamExt::chain(first, rest))
            .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> Sent {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        let chunk = json!({
            "id": format!("chatcmpl-{}", self.id),
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
        });
        Sent::default().data(chunk.to_string())
    }
}
