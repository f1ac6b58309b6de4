//! `/connectors`: Kafka Connect's API of connectors and tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidewater_plugin_api::{ConfigMap, ConnectorKind, SourcePosition};
use tidewater_runtime::Worker;
use tidewater_runtime::config::Problem;
use tidewater_runtime::config_store::TargetState;
use tidewater_runtime::control::NewConnector;
use tidewater_runtime::worker::ConnectorInfo;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::catalog::{Catalog, Verdict, with_secrets_of};
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;
use crate::offsets::Position;
use crate::scalar::text_map;
use crate::status::{StatusView, view as status_view};

/// A connector to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConnectorBody {
    #[schema(example = "orders-to-postgres")]
    name: Option<String>,
    /// Its keys; numbers and booleans are taken as text.
    #[serde(deserialize_with = "text_map")]
    #[schema(value_type = BTreeMap<String, String>)]
    config: BTreeMap<String, Option<String>>,
    /// What it begins with, RUNNING where it is left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "STOPPED")]
    initial_state: Option<TargetState>,
    /// Where it begins, as `PATCH …/offsets` takes it.
    #[serde(default)]
    initial_offsets: Vec<Position>,
}

/// A connector.
#[derive(Serialize, ToSchema)]
pub(crate) struct InfoView {
    name: String,
    /// As written: references to secrets unresolved, and secrets that were written out hidden.
    #[schema(value_type = BTreeMap<String, String>)]
    config: ConfigMap,
    tasks: Vec<TaskId>,
    #[serde(rename = "type")]
    #[schema(example = "source")]
    kind: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TaskId {
    connector: String,
    task: u32,
}

#[derive(Serialize, ToSchema)]
struct TaskView {
    id: TaskId,
    #[schema(value_type = BTreeMap<String, String>)]
    config: ConfigMap,
}

/// A configuration, or changes to one: null takes a key away.
#[derive(Deserialize, ToSchema)]
#[serde(transparent)]
struct ConfigBody {
    #[serde(deserialize_with = "text_map")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    config: BTreeMap<String, Option<String>>,
}

#[derive(Serialize, ToSchema)]
struct Expanded {
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<InfoView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusView>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(describe, delete))
        .routes(routes!(config, put_config, patch_config))
        .routes(routes!(status))
        .routes(routes!(tasks))
        .routes(routes!(topics))
        .routes(routes!(reset_topics))
}

/// `source` or `sink`.
pub(crate) fn kind(kind: ConnectorKind) -> &'static str {
    match kind {
        ConnectorKind::Source => "source",
        ConnectorKind::Sink => "sink",
    }
}

pub(crate) fn info_view(info: ConnectorInfo, catalog: &Catalog) -> InfoView {
    let task = |task| TaskId {
        connector: info.name.clone(),
        task,
    };
    InfoView {
        tasks: info.tasks.iter().copied().map(task).collect(),
        config: catalog.shown(info.config),
        kind: kind(info.kind),
        name: info.name,
    }
}

/// The names of all connectors; with `expand=info` and `expand=status` what they are and where they stand.
#[utoipa::path(get, path = "/connectors", tag = "connectors",
    params(("expand" = Option<Vec<String>>, Query, description = "info, status, or both; others are passed over")),
    responses((status = 200, description = "Names, or with `expand` a map by name", body = Vec<String>)))]
async fn list(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    RawQuery(query): RawQuery,
) -> Response {
    let wants = |what: &str| {
        let query = query.as_deref().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == "expand")
            .any(|(_, value)| value.split(',').any(|value| value == what))
    };
    let (info, status) = (wants("info"), wants("status"));
    let names = worker.connectors();
    if !(info || status) {
        return Json(names).into_response();
    }
    let mut all = serde_json::Map::new();
    let mut statuses = if status {
        crate::status::all(&worker)
    } else {
        BTreeMap::new()
    };
    for name in names {
        // One that was deleted meanwhile is left out.
        let Ok(found) = worker.info(&name) else { continue };
        let kind = found.kind;
        let expanded = Expanded {
            info: info.then(|| info_view(found, &catalog)),
            status: status.then(|| status_view(&name, statuses.remove(&name).unwrap_or_default(), kind)),
        };
        all.insert(name, serde_json::to_value(expanded).unwrap_or_default());
    }
    Json(all).into_response()
}

/// Creates a connector.
#[utoipa::path(post, path = "/connectors", tag = "connectors", request_body = NewConnectorBody, responses(
    (status = 201, body = InfoView),
    (status = 400, description = "What is wrong with the configuration, all of it", body = ErrorMessage),
    (status = 409, description = "There is a connector of this name", body = ErrorMessage),
))]
async fn create(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    extract::Json(new): extract::Json<NewConnectorBody>,
) -> Result<impl IntoResponse> {
    let config = present(new.config);
    let name = name_of(new.name.as_deref(), &config)?;
    let offsets = new
        .initial_offsets
        .into_iter()
        .map(SourcePosition::from)
        .collect();
    create_checked(&worker, &catalog, &name, &config, new.initial_state, offsets).await
}

async fn create_checked(
    worker: &Worker,
    catalog: &Catalog,
    name: &str,
    config: &ConfigMap,
    initial_state: Option<TargetState>,
    offsets: Vec<SourcePosition>,
) -> Result<impl IntoResponse + use<>> {
    if worker.info(name).is_ok() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("Connector {name} already exists; PUT /connectors/{name}/config changes it"),
        ));
    }
    let config = accepted(catalog.check(name, config).await)?;
    let new = NewConnector {
        config,
        initial_state: initial_state.unwrap_or(TargetState::Running),
        offsets,
    };
    worker.create_connector(new).await?;
    let location = [(header::LOCATION, format!("/connectors/{name}"))];
    let info = info_view(worker.info(name)?, catalog);
    Ok((StatusCode::CREATED, location, Json(info)))
}

/// The keys that have a value.
fn present(config: BTreeMap<String, Option<String>>) -> ConfigMap {
    config
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// The name of the body, or that of its configuration, which must agree.
fn name_of(name: Option<&str>, config: &ConfigMap) -> Result<String> {
    let given = name.or_else(|| config.get("name").map(String::as_str));
    let name = given.map(str::trim).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::bad_request("name is missing: every connector has one"))?;
    agree(name, config)?;
    Ok(name.to_owned())
}

fn agree(name: &str, config: &ConfigMap) -> Result<()> {
    match config.get("name") {
        Some(other) if other.trim() != name => Err(ApiError::bad_request(format!(
            "Connector name configuration ({other}) doesn't match connector name ({name}); leave one of them out"
        ))),
        _ => Ok(()),
    }
}

/// The configuration, or all that is wrong with it in Kafka Connect's words.
fn accepted(verdict: Verdict) -> Result<tidewater_runtime::config::ConnectorConfig> {
    let errors: Vec<String> = verdict.errors().map(Problem::statement).collect();
    let class = verdict.spec.map_or_else(|| "CLASS".to_owned(), |spec| spec.class);
    verdict.config.ok_or_else(|| {
        ApiError::bad_request(format!(
            "Connector configuration is invalid and contains the following {} error(s):\n{}\nYou can also find the above \
             list of errors at the endpoint `/connector-plugins/{class}/config/validate`",
            errors.len(),
            errors.join("\n")
        ))
    })
}

/// A connector, its configuration and its tasks.
#[utoipa::path(get, path = "/connectors/{connector}", tag = "connectors", params(("connector" = String, Path)), responses(
    (status = 200, body = InfoView),
    (status = 404, body = ErrorMessage),
))]
async fn describe(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<InfoView>> {
    Ok(Json(info_view(worker.info(&name)?, &catalog)))
}

/// Deletes a connector; its offsets stay.
#[utoipa::path(delete, path = "/connectors/{connector}", tag = "connectors", params(("connector" = String, Path)), responses(
    (status = 204),
    (status = 404, body = ErrorMessage),
))]
async fn delete(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<StatusCode> {
    worker.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A connector's configuration.
#[utoipa::path(get, path = "/connectors/{connector}/config", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 200, body = BTreeMap<String, String>), (status = 404, body = ErrorMessage)))]
async fn config(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<ConfigMap>> {
    Ok(Json(catalog.shown(worker.info(&name)?.config)))
}

/// Gives a connector another configuration, or creates it; only what the change touches restarts.
#[utoipa::path(put, path = "/connectors/{connector}/config", tag = "connectors", params(("connector" = String, Path)),
    request_body = ConfigBody, responses(
        (status = 200, body = InfoView),
        (status = 201, body = InfoView),
        (status = 400, body = ErrorMessage),
    ))]
async fn put_config(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    extract::Path(name): extract::Path<String>,
    extract::Json(body): extract::Json<ConfigBody>,
) -> Result<Response> {
    let config = present(body.config);
    agree(&name, &config)?;
    let Ok(there) = worker.info(&name) else {
        let created = create_checked(&worker, &catalog, &name, &config, None, Vec::new()).await?;
        return Ok(created.into_response());
    };
    let config = with_secrets_of(config, &there.config);
    reconfigured(&worker, &catalog, &name, &config).await
}

async fn reconfigured(
    worker: &Worker,
    catalog: &Catalog,
    name: &str,
    config: &ConfigMap,
) -> Result<Response> {
    let config = accepted(catalog.check(name, config).await)?;
    worker.reconfigure(config).await?;
    Ok(Json(info_view(worker.info(name)?, catalog)).into_response())
}

/// Changes some keys of a configuration; null takes one away.
#[utoipa::path(patch, path = "/connectors/{connector}/config", tag = "connectors", params(("connector" = String, Path)),
    request_body = ConfigBody, responses(
        (status = 200, body = InfoView),
        (status = 400, body = ErrorMessage),
        (status = 404, body = ErrorMessage),
    ))]
async fn patch_config(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    extract::Path(name): extract::Path<String>,
    extract::Json(body): extract::Json<ConfigBody>,
) -> Result<Response> {
    let there = worker.info(&name)?.config;
    let mut config = there.clone();
    for (key, value) in body.config {
        match value {
            Some(value) => config.insert(key, value),
            None => config.remove(&key),
        };
    }
    agree(&name, &config)?;
    reconfigured(&worker, &catalog, &name, &with_secrets_of(config, &there)).await
}

/// Where a connector and its tasks stand, and why.
#[utoipa::path(get, path = "/connectors/{connector}/status", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 200, body = StatusView), (status = 404, body = ErrorMessage)))]
async fn status(
    State(worker): State<Arc<Worker>>,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<StatusView>> {
    let status = worker.status(&name)?;
    Ok(Json(status_view(
        &name,
        (status.connector, status.tasks).into(),
        status.kind,
    )))
}

/// A connector's tasks and what each runs with.
#[utoipa::path(get, path = "/connectors/{connector}/tasks", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 200, body = Vec<TaskView>), (status = 404, body = ErrorMessage)))]
async fn tasks(
    State(worker): State<Arc<Worker>>,
    State(catalog): State<Arc<Catalog>>,
    extract::Path(name): extract::Path<String>,
) -> Result<Json<Vec<TaskView>>> {
    let configs = worker.task_configs(&name)?.into_iter().zip(0..);
    let task = |(config, task)| TaskView {
        id: TaskId {
            connector: name.clone(),
            task,
        },
        config: catalog.shown(config),
    };
    Ok(Json(configs.map(task).collect()))
}

/// The topics a connector has used are not tracked: Kafka Connect's answer where tracking is off.
#[utoipa::path(get, path = "/connectors/{connector}/topics", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 403, body = ErrorMessage)))]
async fn topics() -> ApiError {
    untracked()
}

/// See `GET`.
#[utoipa::path(put, path = "/connectors/{connector}/topics/reset", tag = "connectors", params(("connector" = String, Path)),
    responses((status = 403, body = ErrorMessage)))]
async fn reset_topics() -> ApiError {
    untracked()
}

fn untracked() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "Topic tracking is disabled: this version does not note which topics a connector has used",
    )
}
