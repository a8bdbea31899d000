// SPDX-License-Identifier: MPL-2.0
//! How much one address may ask for.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::App;
use super::error::ApiError;
use crate::config::AccessConfig;

/// Logins that one address may try in a minute.
const LOGINS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Streams of pictures and events that go out at once.
const STREAMS: usize = 1024;
/// Addresses that are remembered before those that rest are forgotten.
const ADDRESSES: usize = 10_000;

type Limiter = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>;

/// All limits.
pub struct Limits {
    requests: Mutex<Arc<Limiter>>,
    questions: Mutex<Arc<Limiter>>,
    logins: Limiter,
    streams: Arc<Semaphore>,
}

impl Limits {
    pub fn new(access: &AccessConfig) -> Self {
        Limits {
            requests: Mutex::new(limiter(access.requests_per_minute)),
            questions: Mutex::new(limiter(access.questions_per_minute)),
            logins: RateLimiter::hashmap(Quota::per_minute(LOGINS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    pub fn configure(&self, access: &AccessConfig) {
        *self.requests.lock() = limiter(access.requests_per_minute);
        *self.questions.lock() = limiter(access.questions_per_minute);
    }

    pub fn request(&self, from: IpAddr) -> Result<(), ApiError> {
        let limiter = self.requests.lock().clone();
        check(&limiter, from, 1, "requests")
    }

    pub fn questions(&self, from: IpAddr, many: usize) -> Result<(), ApiError> {
        let limiter = self.questions.lock().clone();
        check(&limiter, from, many, "questions")
    }

    pub fn login(&self, from: IpAddr) -> Result<(), ApiError> {
        check(&self.logins, from, 1, "logins")
    }

    /// To be held as long as the stream lasts.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let error = ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{STREAMS} streams go out already"),
            );
            error.remedy("close other pages")
        })
    }
}

fn limiter(per_minute: u32) -> Arc<Limiter> {
    let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
    Arc::new(RateLimiter::hashmap(Quota::per_minute(per_minute)))
}

fn check(limiter: &Limiter, from: IpAddr, many: usize, what: &str) -> Result<(), ApiError> {
    if limiter.len() > ADDRESSES {
        limiter.retain_recent();
    }
    let Some(many) = u32::try_from(many).ok().and_then(NonZeroU32::new) else { return Ok(()) };
    let refused = |wait: Option<Duration>| {
        let error = ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("too many {what} from this address"),
        );
        match wait {
            Some(wait) => error.remedy(format!("try again in {:.0} s", wait.as_secs_f64().ceil())),
            None => error.remedy(format!(
                "ask for fewer at once, or raise {what}_per_minute in section [access]"
            )),
        }
    };
    match limiter.check_key_n(&from, many) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(not_until)) => {
            Err(refused(Some(not_until.wait_time_from(DefaultClock::default().now()))))
        }
        Err(_) => Err(refused(None)),
    }
}

/// Counts requests; the live picture of a page comes too often to be counted, and costs next to nothing.
pub async fn count(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path().ends_with("/live.jpg") {
        return next.run(request).await;
    }
    match app.limits.request(from.ip()) {
        Err(error) => {
            let mut response = error.into_response();
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
            response
        }
        Ok(()) => next.run(request).await,
    }
}
