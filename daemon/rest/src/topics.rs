//! `/topics`: list, create, describe, alter, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use tidewater_runtime::administration::TopicDescription;
use tidewater_runtime::broker::{Broker, is_internal};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;
use crate::scalar::text_map;

/// A topic in the list.
#[derive(Serialize, ToSchema)]
struct TopicSummary {
    #[schema(example = "orders")]
    name: String,
    /// Tells the topic from any other of the same name, before or after it.
    id: String,
    #[schema(example = 3)]
    partitions: u32,
    /// It keeps the worker's own state.
    internal: bool,
}

/// A topic, its settings and its partitions.
#[derive(Serialize, ToSchema)]
struct TopicView {
    name: String,
    id: String,
    internal: bool,
    /// The settings in force, under Kafka's names.
    config: BTreeMap<String, SettingView>,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize, ToSchema)]
struct SettingView {
    #[schema(example = "604800000")]
    value: String,
    /// `topic` where it was set for this topic, else `default`.
    source: &'static str,
}

#[derive(Serialize, ToSchema)]
struct PartitionView {
    partition: u32,
    /// The first offset kept.
    log_start_offset: u64,
    /// Where readers of committed data end.
    last_stable_offset: u64,
    /// Everything before is acknowledged.
    high_watermark: u64,
    size_bytes: u64,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTopic {
    #[schema(example = "orders")]
    name: String,
    /// 1 where it is left out.
    #[serde(default = "one")]
    partitions: u32,
    /// Settings under Kafka's names; numbers and booleans are taken as text.
    #[serde(default, deserialize_with = "text_map")]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"retention.ms": "86400000"}))]
    config: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TopicChange {
    /// The number of partitions there are to be; they can only grow.
    partitions: Option<u32>,
    /// Settings to change; null takes one back to its default.
    #[serde(default, deserialize_with = "text_map")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    config: BTreeMap<String, Option<String>>,
}

fn one() -> u32 {
    1
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(describe, alter, delete))
}

/// All topics.
#[utoipa::path(get, path = "/topics", tag = "topics", responses((status = 200, body = Vec<TopicSummary>)))]
async fn list(State(broker): State<Arc<dyn Broker>>) -> Json<Vec<TopicSummary>> {
    let summary = |topic: tidewater_runtime::broker::TopicInfo| TopicSummary {
        internal: is_internal(&topic.name),
        name: topic.name,
        id: topic.id,
        partitions: topic.partitions,
    };
    Json(broker.topics().into_iter().map(summary).collect())
}

/// Creates a topic.
#[utoipa::path(post, path = "/topics", tag = "topics", request_body = NewTopic, responses(
    (status = 201, body = TopicView),
    (status = 400, description = "A name, number or setting that cannot be", body = ErrorMessage),
    (status = 403, description = "The name is the worker's own", body = ErrorMessage),
    (status = 409, description = "There is a topic of this name", body = ErrorMessage),
))]
async fn create(
    State(broker): State<Arc<dyn Broker>>,
    extract::Json(new): extract::Json<NewTopic>,
) -> Result<impl IntoResponse> {
    refuse_internal(&new.name, "created")?;
    let settings = new
        .config
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    broker.create_topic(&new.name, new.partitions, &settings).await?;
    let location = [(header::LOCATION, format!("/topics/{}", new.name))];
    Ok((
        StatusCode::CREATED,
        location,
        Json(view(broker.describe_topic(&new.name).await?)),
    ))
}

/// A topic, its settings and its partitions.
#[utoipa::path(get, path = "/topics/{topic}", tag = "topics", params(("topic" = String, Path)), responses(
    (status = 200, body = TopicView),
    (status = 404, body = ErrorMessage),
))]
async fn describe(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(topic): extract::Path<String>,
) -> Result<Json<TopicView>> {
    Ok(Json(view(broker.describe_topic(&topic).await?)))
}

/// Changes settings and adds partitions.
#[utoipa::path(patch, path = "/topics/{topic}", tag = "topics", params(("topic" = String, Path)), request_body = TopicChange,
    responses(
        (status = 200, body = TopicView),
        (status = 400, body = ErrorMessage),
        (status = 403, description = "The topic keeps the worker's own state", body = ErrorMessage),
        (status = 404, body = ErrorMessage),
    ))]
async fn alter(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(topic): extract::Path<String>,
    extract::Json(change): extract::Json<TopicChange>,
) -> Result<Json<TopicView>> {
    refuse_internal(&topic, "altered")?;
    if !change.config.is_empty() {
        broker.alter_topic(&topic, &change.config).await?;
    }
    if let Some(total) = change.partitions {
        broker.add_partitions(&topic, total).await?;
    }
    Ok(Json(view(broker.describe_topic(&topic).await?)))
}

/// Deletes a topic with all its records, and what groups committed in it.
#[utoipa::path(delete, path = "/topics/{topic}", tag = "topics", params(("topic" = String, Path)), responses(
    (status = 204),
    (status = 403, description = "The topic keeps the worker's own state", body = ErrorMessage),
    (status = 404, body = ErrorMessage),
))]
async fn delete(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(topic): extract::Path<String>,
) -> Result<StatusCode> {
    refuse_internal(&topic, "deleted")?;
    broker.delete_topic(&topic).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn refuse_internal(topic: &str, what: &str) -> Result<()> {
    if is_internal(topic) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!("topic {topic} keeps the worker's own state and cannot be {what} here"),
        ));
    }
    Ok(())
}

fn view(described: TopicDescription) -> TopicView {
    let TopicDescription {
        topic,
        settings,
        partitions,
    } = described;
    let setting = |(name, setting): (String, tidewater_runtime::administration::TopicSetting)| {
        let source = if setting.of_topic { "topic" } else { "default" };
        let value = setting.value;
        (name, SettingView { value, source })
    };
    let partition = |p: tidewater_runtime::administration::PartitionDescription| PartitionView {
        partition: p.partition,
        log_start_offset: p.log_start,
        last_stable_offset: p.last_stable,
        high_watermark: p.high_watermark,
        size_bytes: p.size_bytes,
    };
    TopicView {
        internal: is_internal(&topic.name),
        name: topic.name,
        id: topic.id,
        config: settings.into_iter().map(setting).collect(),
        partitions: partitions.into_iter().map(partition).collect(),
    }
}
