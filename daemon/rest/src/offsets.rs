//! `/connectors/{c}/offsets`: how far a connector has come, and changing it while it is STOPPED.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidewater_plugin_api::SourcePosition;
use tidewater_runtime::Worker;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ErrorMessage, Result};
use crate::extract;

/// Offsets, for both ways.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offsets {
    offsets: Vec<Position>,
}

/// A part of the outside, and how far it is read. Of a sink `{"kafka_topic": …, "kafka_partition": …}` and
/// `{"kafka_offset": …}`.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    #[schema(value_type = Object)]
    partition: Map<String, Value>,
    /// Null begins this part anew.
    #[schema(value_type = Option<Object>)]
    offset: Option<Map<String, Value>>,
}

#[derive(Serialize, ToSchema)]
struct Message {
    message: &'static str,
}

impl From<Position> for SourcePosition {
    fn from(position: Position) -> Self {
        Self {
            partition: position.partition,
            offset: position.offset,
        }
    }
}

impl From<SourcePosition> for Position {
    fn from(position: SourcePosition) -> Self {
        Self {
            partition: position.partition,
            offset: position.offset,
        }
    }
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(read, alter, reset))
}

/// How far a connector has come.
#[utoipa::path(get, path = "/connectors/{connector}/offsets", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 200, body = Offsets), (status = 404, body = ErrorMessage)))]
async fn read(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<Offsets>> {
    let offsets = worker.offsets(&name)?.into_iter().map(Position::from).collect();
    Ok(Json(Offsets { offsets }))
}

/// Changes where a stopped connector goes on.
#[utoipa::path(patch, path = "/connectors/{connector}/offsets", tag = "connectors", params(("connector" = String, Path)),
    request_body = Offsets, responses(
        (status = 200, body = Message),
        (status = 400, description = "It is not STOPPED, or the offsets make no sense", body = ErrorMessage),
        (status = 404, body = ErrorMessage),
    ))]
async fn alter(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
    extract::Json(body): extract::Json<Offsets>,
) -> Result<Json<Message>> {
    let offsets = body.offsets.into_iter().map(SourcePosition::from).collect();
    let message = worker.alter_offsets(&name, offsets).await?.message();
    Ok(Json(Message { message }))
}

/// Has a stopped connector begin anew.
#[utoipa::path(delete, path = "/connectors/{connector}/offsets", tag = "connectors", params(("connector" = String, Path)), responses(
    (status = 200, body = Message),
    (status = 400, description = "It is not STOPPED", body = ErrorMessage),
    (status = 404, body = ErrorMessage),
))]
async fn reset(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<Message>> {
    let message = worker.reset_offsets(&name).await?.message();
    Ok(Json(Message { message }))
}
