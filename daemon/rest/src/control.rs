//! Pause, resume, stop, restart.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tidewater_runtime::Worker;
use tidewater_runtime::control::ControlError;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;
use crate::status::{StatusView, TaskStateView, task_view, view};

/// What restarts with a connector.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Restart {
    /// The tasks too.
    #[serde(default, rename = "includeTasks")]
    #[param(rename = "includeTasks")]
    include_tasks: bool,
    /// Only what has failed.
    #[serde(default, rename = "onlyFailed")]
    #[param(rename = "onlyFailed")]
    only_failed: bool,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(task_status))
        .routes(routes!(restart_task))
}

/// Has a connector rest; its tasks keep their plugins.
#[utoipa::path(put, path = "/connectors/{connector}/pause", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 202), (status = 404, body = ErrorMessage)))]
async fn pause(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<StatusCode> {
    worker.pause(&name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Has a connector go on.
#[utoipa::path(put, path = "/connectors/{connector}/resume", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 202), (status = 404, body = ErrorMessage)))]
async fn resume(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<StatusCode> {
    worker.resume(&name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Stops a connector: its tasks are released, and its offsets can be changed.
#[utoipa::path(put, path = "/connectors/{connector}/stop", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 204), (status = 404, body = ErrorMessage)))]
async fn stop(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<StatusCode> {
    worker.stop(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restarts a connector's instance, and its tasks where that is asked for.
#[utoipa::path(post, path = "/connectors/{connector}/restart", tag = "connectors", params(("connector" = String, Path), Restart),
    responses(
        (status = 204, description = "The instance alone restarts"),
        (status = 202, description = "What restarts is shown as RESTARTING", body = StatusView),
        (status = 404, body = ErrorMessage),
    ))]
async fn restart(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
    extract::Query(what): extract::Query<Restart>,
) -> Result<Response> {
    let restarting = worker
        .restart(&name, what.include_tasks, what.only_failed)
        .await?;
    if !(what.include_tasks || what.only_failed) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let status = worker.status(&name)?;
    let mut shown = view(&name, (status.connector, status.tasks).into(), status.kind);
    shown.restarting(&restarting);
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// Where a task stands.
#[utoipa::path(get, path = "/connectors/{connector}/tasks/{task}/status", tag = "connectors",
    params(("connector" = String, Path), ("task" = u32, Path)),
    responses((status = 200, body = TaskStateView), (status = 404, body = ErrorMessage)))]
async fn task_status(
    State(worker): State<Arc<Worker>>,
    extract::Path((name, task)): extract::Path<(String, u32)>,
) -> Result<Json<TaskStateView>> {
    let status = worker.status(&name)?.tasks.remove(&task);
    let status = status.ok_or_else(|| ApiError::from(ControlError::NoTask(name, task)))?;
    Ok(Json(task_view(task, status)))
}

/// Restarts a task.
#[utoipa::path(post, path = "/connectors/{connector}/tasks/{task}/restart", tag = "connectors",
    params(("connector" = String, Path), ("task" = u32, Path)),
    responses((status = 204), (status = 404, body = ErrorMessage)))]
async fn restart_task(
    State(worker): State<Arc<Worker>>,
    extract::Path((name, task)): extract::Path<(String, u32)>,
) -> Result<StatusCode> {
    worker.restart_task(&name, task).await?;
    Ok(StatusCode::NO_CONTENT)
}
