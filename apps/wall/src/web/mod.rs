// SPDX-License-Identifier: MPL-2.0
//! The page and the API.

mod access;
mod cameras;
mod error;
mod events;
mod files;
mod history;
mod limits;
mod openai;
mod openapi;
mod pictures;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::error::ApiError;
use self::limits::Limits;
use crate::brokers::metrics::{self, Metrics};
use crate::cameras::Cameras;
use crate::config::{AccessConfig, Config};
use crate::history::History;
use crate::hub::{Asks, Hub};

/// Bytes of the longest request.
const LONGEST: usize = 64 << 10;

/// What a page may load: what comes from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' blob:; \
    media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What requests are answered from.
pub struct App {
    hub: Hub,
    history: History,
    cameras: Cameras,
    asks: Arc<dyn Asks>,
    host: String,
    metrics: Metrics,
    settings: RwLock<Settings>,
    limits: Limits,
}

/// What a new configuration may change.
struct Settings {
    name: String,
    access: Arc<AccessConfig>,
}

impl App {
    /// Of the parts of a wall.
    pub fn new(
        config: &Config,
        host: &str,
        hub: &Hub,
        history: &History,
        cameras: &Cameras,
        asks: &Arc<dyn Asks>,
        metrics: Metrics,
    ) -> Self {
        App {
            hub: hub.clone(),
            history: history.clone(),
            cameras: cameras.clone(),
            asks: asks.clone(),
            host: host.to_owned(),
            metrics,
            settings: RwLock::new(Settings::of(config)),
            limits: Limits::new(&config.access),
        }
    }

    /// The configuration says something else.
    pub fn configure(&self, config: &Config) {
        let access = self.access();
        if *access != config.access {
            self.limits.configure(&config.access);
        }
        *self.settings.write() = Settings::of(config);
    }

    fn access(&self) -> Arc<AccessConfig> {
        self.settings.read().access.clone()
    }

    fn name(&self) -> String {
        self.settings.read().name.clone()
    }
}

impl Settings {
    fn of(config: &Config) -> Self {
        let mut access = config.access.clone();
        access.hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
        Settings { name: config.wall.name.clone(), access: Arc::new(access) }
    }
}

/// All that is served, and what describes it: a route is in both or in none.
fn routes(app: &Arc<App>) -> (Router, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(openapi::about())
        .routes(routes!(cameras::state))
        .routes(routes!(events::events))
        .routes(routes!(cameras::ask))
        .routes(routes!(cameras::camera))
        .routes(routes!(cameras::standing, cameras::add_standing))
        .routes(routes!(cameras::remove_standing))
        .routes(routes!(history::answers))
        .routes(routes!(history::find))
        .routes(routes!(history::json))
        .routes(routes!(history::csv))
        .routes(routes!(pictures::newest))
        .routes(routes!(pictures::mjpeg))
        .routes(routes!(pictures::moments))
        .routes(routes!(pictures::picture))
        .routes(routes!(openai::models))
        .routes(routes!(openai::complete))
        .routes(routes!(access::login))
        .routes(routes!(health))
        .routes(routes!(numbers))
        .routes(routes!(openapi::json))
        .routes(routes!(openapi::page))
        .routes(routes!(openapi::script))
        .routes(routes!(files::index))
        .routes(routes!(files::file))
        .with_state(app.clone())
        .merge(crate::picture::router(app.cameras.clone()))
        .split_for_parts()
}

/// All that is served, as it is served.
pub fn router(app: Arc<App>) -> Router {
    let fixed = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let (routes, api) = routes(&app);
    routes
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this address")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not know this method")
        })
        .layer(axum::Extension(Arc::new(api)))
        .layer(axum::middleware::map_response(error::in_form))
        .layer(DefaultBodyLimit::max(LONGEST))
        .layer(axum::middleware::from_fn_with_state(app.clone(), access::check))
        .layer(axum::middleware::from_fn_with_state(app, limits::count))
        .layer(fixed(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a fault in the wall itself; its log says where",
            )
            .into_response()
        }))
}

/// Whether it is there, for whoever restarts programs.
#[utoipa::path(get, path = "/healthz", tag = "numbers", responses((status = 200, content_type = "text/plain")))]
async fn health() -> &'static str {
    "ok\n"
}

/// What Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "numbers",
    responses((status = 200, content_type = "application/openmetrics-text")))]
async fn numbers(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.text())
}

/// Serves until it is stopped.
pub fn serve(
    listener: TcpListener,
    app: Arc<App>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        let stopped = async move { stop.cancelled().await };
        if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stopped).await {
            tracing::error!("the page is not served any more: {error}");
        }
    })
}

#[cfg(test)]
mod tests;
