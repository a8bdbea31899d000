// SPDX-License-Identifier: MPL-2.0
//! One POST, and what is to be thought of it.

use std::time::Duration;

use jiff::Timestamp;

use super::queue::Message;
use super::sign::Key;
use crate::config::WebhookConfig;

/// Longest time that one POST may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait that a receiver may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(3600);

/// How a POST ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It was taken.
    Taken,
    /// It will never be: another try would end the same.
    Refused(String),
    /// It was not, and is tried again, not before the time the receiver asked for.
    Again(String, Option<Duration>),
}

/// Where and how one hook's messages are posted.
pub(super) struct Poster {
    agent: ureq::Agent,
    config: WebhookConfig,
    key: Option<Key>,
}

impl Poster {
    pub fn new(config: WebhookConfig) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // Another address than the configured one gets nothing.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("streamkvqa-wall/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let key = config.secret.as_deref().filter(|secret| !secret.is_empty()).map(Key::new);
        Poster { agent, config, key }
    }

    /// Waits for the receiver, up to ten seconds: not for threads that others wait for.
    pub fn post(&self, message: &Message) -> Outcome {
        let at = Timestamp::now().as_second();
        let mut request = self
            .agent
            .post(&self.config.url)
            .header("content-type", "application/json")
            .header("idempotency-key", &message.id)
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", at.to_string());
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", key.sign(&message.id, at, &message.body));
        }
        match request.send(message.body.as_slice()) {
            Ok(response) => judge(response.status().as_u16(), retry_after(&response)),
            // What cannot be written into a request now cannot be later.
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                Outcome::Refused(error.to_string())
            }
            Err(error) => Outcome::Again(error.to_string(), None),
        }
    }
}

fn retry_after<B>(response: &ureq::http::Response<B>) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WISH))
}

fn judge(status: u16, wish: Option<Duration>) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        408 | 429 => Outcome::Again(format!("the receiver says {status}"), wish),
        300..=399 => {
            Outcome::Refused(format!("the receiver says {status}; another address is not followed"))
        }
        400..=499 => Outcome::Refused(format!("the receiver refuses it with {status}")),
        _ => Outcome::Again(format!("the receiver fails with {status}"), wish),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        for status in [301, 400, 401, 404, 410, 422] {
            assert!(matches!(judge(status, None), Outcome::Refused(_)), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(judge(status, None), Outcome::Again(..)), "{status}");
        }
        for status in [200, 201, 204] {
            assert_eq!(judge(status, None), Outcome::Taken);
        }
    }
}
