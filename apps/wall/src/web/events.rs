// SPDX-License-Identifier: MPL-2.0
//! What happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event as Sent, KeepAlive};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::error::ApiError;
use crate::hub::{self, Receiver};

/// First `state` with all that is so, then what happens. Who is too slow gets another `state`.
#[utoipa::path(get, path = "/api/events", tag = "cameras",
    responses((status = 200, content_type = "text/event-stream",
        description = "events state, camera, gone, token, answer, alert, health, standing, broker, order")))]
pub async fn events(
    State(app): State<Arc<App>>,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, ApiError> {
    let permit = app.limits.stream()?;
    let (state, receiver) = app.hub.subscribe_with_state();
    let listener = Listener { app, receiver, first: Some(state), _permit: permit };
    let stream = futures_util::stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

struct Listener {
    app: Arc<App>,
    receiver: Receiver,
    first: Option<hub::State>,
    _permit: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(state) = self.first.take() {
                return Some(sent("state", &self.app.whole(state)));
            }
            match self.receiver.recv().await {
                Ok(event) => return Some(sent(event.kind(), &event.data())),
                Err(RecvError::Lagged(_)) => {
                    let (state, receiver) = self.app.hub.subscribe_with_state();
                    (self.receiver, self.first) = (receiver, Some(state));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn sent(kind: &str, data: &impl serde::Serialize) -> Sent {
    let event = Sent::default().event(kind);
    // JSON has no line feeds outside texts, and escapes those inside.
    event.data(serde_json::to_string(data).unwrap_or_default())
}
