//! `/groups`: consumer groups, and how far they are behind.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tidewater_runtime::administration::GroupOffset;
use tidewater_runtime::broker::Broker;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;

#[derive(Serialize, ToSchema)]
struct GroupSummary {
    #[schema(example = "connect-orders-sink")]
    group: String,
    #[schema(example = "Empty")]
    state: String,
}

#[derive(Serialize, ToSchema)]
struct GroupView {
    group: String,
    state: String,
    /// The ids of its members; a sink's tasks share partitions among themselves and are none.
    members: Vec<String>,
    /// The sum over its partitions.
    lag: u64,
    offsets: Vec<OffsetView>,
}

#[derive(Serialize, ToSchema)]
struct OffsetView {
    topic: String,
    partition: u32,
    /// The next offset it will read.
    committed_offset: u64,
    /// Where readers of committed data end; null if the partition is gone.
    end_offset: Option<u64>,
    /// Offsets between the two. It counts what readers pass over, such as transaction markers.
    lag: Option<u64>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(describe, delete))
}

/// All consumer groups.
#[utoipa::path(get, path = "/groups", tag = "groups", responses((status = 200, body = Vec<GroupSummary>)))]
async fn list(State(broker): State<Arc<dyn Broker>>) -> Json<Vec<GroupSummary>> {
    let groups = broker.groups().into_iter();
    Json(
        groups
            .map(|(group, state)| GroupSummary { group, state })
            .collect(),
    )
}

/// A group, and how far it is behind in each partition.
#[utoipa::path(get, path = "/groups/{group}", tag = "groups", params(("group" = String, Path)), responses(
    (status = 200, body = GroupView),
    (status = 404, body = ErrorMessage),
))]
async fn describe(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(group): extract::Path<String>,
) -> Result<Json<GroupView>> {
    let found = broker.describe_group(&group).ok_or_else(|| missing(&group))?;
    let offset = |offset: GroupOffset| OffsetView {
        topic: offset.partition.topic,
        partition: offset.partition.partition,
        committed_offset: offset.committed,
        end_offset: offset.end,
        lag: offset.lag,
    };
    Ok(Json(GroupView {
        group: found.group,
        state: found.state,
        members: found.members,
        lag: found.offsets.iter().filter_map(|offset| offset.lag).sum(),
        offsets: found.offsets.into_iter().map(offset).collect(),
    }))
}

/// Forgets what a group without members has committed.
#[utoipa::path(delete, path = "/groups/{group}", tag = "groups", params(("group" = String, Path)), responses(
    (status = 204),
    (status = 404, body = ErrorMessage),
    (status = 409, description = "It has members", body = ErrorMessage),
))]
async fn delete(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(group): extract::Path<String>,
) -> Result<StatusCode> {
    if broker.describe_group(&group).is_none() {
        return Err(missing(&group));
    }
    broker.delete_group(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn missing(group: &str) -> ApiError {
    ApiError::not_found(format!(
        "there is no group {group}: nothing is committed under that name; a sink's is connect- and its name"
    ))
}
