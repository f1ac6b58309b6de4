//! `/`, `/health`: who this is, whether it lives, whether all that is wanted runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tidewater_runtime::Worker;
use tidewater_runtime::config_store::TargetState;
use tidewater_runtime::status::State as Standing;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::status::all;

#[derive(Serialize, ToSchema)]
struct ServerInfo {
    version: &'static str,
    commit: &'static str,
    kafka_cluster_id: String,
}

/// Kafka Connect's answer (KIP-1017).
#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(example = "healthy")]
    status: &'static str,
    message: String,
}

/// Whether all connectors that are wanted run.
#[derive(Serialize, ToSchema)]
struct Readiness {
    ready: bool,
    /// What does not run, such as `orders-sink task 0 FAILED`.
    waiting_for: Vec<String>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(server))
        .routes(routes!(health))
        .routes(routes!(live))
        .routes(routes!(ready))
}

/// What serves this.
#[utoipa::path(get, path = "/", tag = "health", responses((status = 200, body = ServerInfo)))]
async fn server() -> Json<ServerInfo> {
    Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("TIDEWATER_COMMIT").unwrap_or("unknown"),
        kafka_cluster_id: "embedded".to_owned(),
    })
}

/// Whether the worker can serve requests.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(Health {
        status: "healthy",
        message: "Worker has completed startup and is ready to handle requests.".to_owned(),
    })
}

/// Whether the process lives: it answers.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200)))]
async fn live() -> StatusCode {
    StatusCode::OK
}

/// Whether every connector that is wanted runs, with all its tasks.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
async fn ready(State(worker): State<Arc<Worker>>) -> (StatusCode, Json<Readiness>) {
    let statuses = all(&worker);
    let mut waiting_for = Vec::new();
    for name in worker.connectors() {
        if worker
            .target(&name)
            .is_ok_and(|target| target != TargetState::Running)
        {
            continue;
        }
        match statuses.get(&name) {
            Some(of) => waiting_for.extend(
                of.others_than(Standing::Running)
                    .map(|what| format!("{name} {what}")),
            ),
            None => waiting_for.push(format!("{name} UNASSIGNED")),
        }
    }
    let ready = waiting_for.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, waiting_for }))
}
