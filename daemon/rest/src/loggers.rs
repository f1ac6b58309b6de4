//! `/admin/loggers`: what is logged, module by module, changed while the daemon runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;

/// The logger of everything that has no level of its own.
pub const ROOT: &str = "root";

/// What is logged; the daemon's own logging does it.
pub trait LogLevels: Send + Sync {
    /// The level of each logger that has one, [`ROOT`] among them.
    fn levels(&self) -> BTreeMap<String, LoggerLevel>;

    /// Sets the level of a logger and all beneath it; answers those it changed, or why there is no such level or logger.
    fn set(&self, logger: &str, level: &str) -> Result<Vec<String>, String>;
}

/// The level of a logger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LoggerLevel {
    /// ERROR, WARN, INFO, DEBUG, TRACE or OFF.
    #[schema(example = "INFO")]
    pub level: String,
    /// When it was changed, in milliseconds since 1970; null if it was not.
    pub last_modified: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
struct LevelBody {
    level: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Scope {
    /// worker (the default) or cluster, which are the same here but for the answer.
    scope: Option<String>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(describe, set))
}

/// The loggers that have a level of their own.
#[utoipa::path(get, path = "/admin/loggers", tag = "admin", responses((status = 200, body = BTreeMap<String, LoggerLevel>)))]
async fn list(State(levels): State<Arc<dyn LogLevels>>) -> Json<BTreeMap<String, LoggerLevel>> {
    Json(levels.levels())
}

/// The level of a logger.
#[utoipa::path(get, path = "/admin/loggers/{logger}", tag = "admin", params(("logger" = String, Path)), responses(
    (status = 200, body = LoggerLevel),
    (status = 404, body = ErrorMessage),
))]
async fn describe(
    State(levels): State<Arc<dyn LogLevels>>,
    extract::Path(logger): extract::Path<String>,
) -> Result<Json<LoggerLevel>> {
    let level = levels.levels().remove(&logger);
    let missing = || ApiError::not_found(format!("logger {logger} has no level of its own; root has one"));
    level.map(Json).ok_or_else(missing)
}

/// Sets the level of a logger, such as `tidewater_broker`, and of all beneath it.
#[utoipa::path(put, path = "/admin/loggers/{logger}", tag = "admin", params(("logger" = String, Path), Scope), request_body = LevelBody,
    responses(
        (status = 200, description = "The loggers that were changed", body = Vec<String>),
        (status = 204, description = "With scope=cluster"),
        (status = 400, body = ErrorMessage),
        (status = 404, description = "There is no such level", body = ErrorMessage),
    ))]
async fn set(
    State(levels): State<Arc<dyn LogLevels>>,
    extract::Path(logger): extract::Path<String>,
    extract::Query(scope): extract::Query<Scope>,
    extract::Json(body): extract::Json<LevelBody>,
) -> Result<Response> {
    let missing =
        || ApiError::bad_request("the body has no level; it must be such as {\"level\": \"DEBUG\"}");
    let level = body.level.ok_or_else(missing)?;
    let changed = levels.set(&logger, &level).map_err(ApiError::not_found)?;
    if scope.scope.as_deref() == Some("cluster") {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(Json(changed).into_response())
}
