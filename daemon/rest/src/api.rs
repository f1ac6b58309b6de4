//! The routes together, and what all of them share.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::{Method, StatusCode, Uri};
use axum::routing::get;
use tidewater_runtime::Worker;
use tidewater_runtime::broker::Broker;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::catalog::Catalog;
use crate::error::ApiError;
use crate::loggers::LogLevels;
use crate::{connectors, control, groups, health, loggers, metrics, offsets, plugins, records, topics};

/// The longest body of a call.
const MAX_BODY: usize = 16 << 20;
/// The longest a call takes.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The connectors.
    pub worker: Arc<Worker>,
    /// What is installed.
    pub catalog: Arc<Catalog>,
    /// What is logged.
    pub log_levels: Arc<dyn LogLevels>,
}

impl FromRef<Api> for Arc<dyn Broker> {
    fn from_ref(api: &Api) -> Self {
        api.worker.broker().clone()
    }
}

impl FromRef<Api> for Arc<Worker> {
    fn from_ref(api: &Api) -> Self {
        api.worker.clone()
    }
}

impl FromRef<Api> for Arc<Catalog> {
    fn from_ref(api: &Api) -> Self {
        api.catalog.clone()
    }
}

impl FromRef<Api> for Arc<dyn LogLevels> {
    fn from_ref(api: &Api) -> Self {
        api.log_levels.clone()
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Tidewater",
    description = "Kafka Connect's REST API, and what Tidewater has beyond it."
))]
struct Document;

/// All routes, and their OpenAPI document.
fn routes() -> (Router<Api>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(health::routes())
        .merge(connectors::routes())
        .merge(control::routes())
        .merge(offsets::routes())
        .merge(plugins::routes())
        .merge(loggers::routes())
        .merge(topics::routes())
        .merge(records::routes())
        .merge(groups::routes())
        .merge(metrics::routes())
        .split_for_parts()
}

/// The API as a service.
pub fn app(api: Api) -> Router {
    let (routes, document) = routes();
    routes
        .route("/openapi.json", get(|| async { axum::Json(document) }))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(api)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            TIMEOUT,
        ))
        .layer(CatchPanicLayer::new())
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::not_found(format!(
        "there is no {}; /openapi.json lists what there is",
        uri.path()
    ))
}

async fn not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{} does not take {method}; /openapi.json says what it takes",
            uri.path()
        ),
    )
}
