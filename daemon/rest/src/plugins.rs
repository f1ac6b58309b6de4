//! `/connector-plugins`: what is installed, its keys, and validation.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidewater_plugin_api::config_def::{ConfigType, Importance};
use tidewater_plugin_api::{ConfigKey, ConfigMap, ConnectorSpec};
use tidewater_runtime::config::nearest::suggestion;
use tidewater_runtime::config::{Problem, connector_keys};
use tidewater_runtime::converter::Role;
use tidewater_runtime::converter::class::classes;
use tidewater_transforms::{PredicateClass, TransformClass};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::catalog::Catalog;
use crate::connectors::kind;
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;
use crate::scalar::text_map;

#[derive(Serialize, ToSchema)]
struct PluginView {
    #[schema(example = "postgres-source")]
    class: String,
    /// source, sink, converter, header_converter, transformation or predicate.
    #[serde(rename = "type")]
    kind: &'static str,
    version: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Without converters, transforms and predicates; true where it is left out.
    #[serde(default = "yes", rename = "connectorsOnly")]
    #[param(rename = "connectorsOnly")]
    connectors_only: bool,
}

fn yes() -> bool {
    true
}

/// A key, in Kafka Connect's form.
#[derive(Serialize, ToSchema)]
struct KeyView {
    name: String,
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "STRING")]
    ty: ConfigType,
    required: bool,
    default_value: Option<String>,
    #[schema(value_type = String, example = "HIGH")]
    importance: Importance,
    documentation: String,
    group: Option<String>,
    order: usize,
    width: &'static str,
    display_name: String,
    dependents: Vec<String>,
}

/// What validating found.
#[derive(Serialize, ToSchema)]
struct ConfigInfos {
    name: String,
    error_count: usize,
    groups: Vec<String>,
    configs: Vec<ConfigInfo>,
}

#[derive(Serialize, ToSchema)]
struct ConfigInfo {
    definition: KeyView,
    value: ValueView,
}

#[derive(Serialize, ToSchema)]
struct ValueView {
    name: String,
    /// As given: references unresolved, secrets hidden.
    value: Option<String>,
    recommended_values: Vec<String>,
    errors: Vec<String>,
    visible: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(transparent)]
struct ConfigBody {
    #[serde(deserialize_with = "text_map")]
    #[schema(value_type = BTreeMap<String, String>)]
    config: BTreeMap<String, Option<String>>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(keys))
        .routes(routes!(validate))
}

/// The installed classes.
#[utoipa::path(get, path = "/connector-plugins", tag = "plugins", params(Which), responses((status = 200, body = Vec<PluginView>)))]
async fn list(
    State(catalog): State<Arc<Catalog>>,
    extract::Query(which): extract::Query<Which>,
) -> Json<Vec<PluginView>> {
    let connectors = catalog.registry.classes().into_iter().map(|spec| PluginView {
        kind: kind(spec.kind),
        class: spec.class,
        version: spec.version,
    });
    let mut all: Vec<_> = connectors.collect();
    if !which.connectors_only {
        let own = |kind: &'static str| {
            move |class: &str| PluginView {
                class: class.to_owned(),
                kind,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }
        };
        all.extend(classes(Role::Content).map(own("converter")));
        all.extend(classes(Role::Header).map(own("header_converter")));
        let transforms = tidewater_transforms::class::transforms().iter();
        all.extend(
            transforms
                .flat_map(TransformClass::names)
                .map(|name| own("transformation")(&name)),
        );
        let predicates = tidewater_transforms::class::predicates().iter();
        all.extend(predicates.flat_map(PredicateClass::names).map(own("predicate")));
    }
    Json(all)
}

/// The class that is asked for, or 404 with what there is.
fn spec(catalog: &Catalog, name: &str) -> Result<ConnectorSpec> {
    catalog.spec(name).ok_or_else(|| {
        let classes = catalog.registry.classes();
        let known = classes
            .iter()
            .flat_map(|spec| std::iter::once(&spec.class).chain(&spec.aliases));
        let near = suggestion(name, known.map(String::as_str));
        let installed: Vec<&str> = classes.iter().map(|spec| spec.class.as_str()).collect();
        ApiError::not_found(format!(
            "there is no class {name:?}{near}; installed are {}",
            installed.join(", ")
        ))
    })
}

/// The keys of a class, those of every connector first.
fn all_keys(spec: &ConnectorSpec) -> impl Iterator<Item = &ConfigKey> {
    connector_keys::keys(spec.kind)
        .keys
        .iter()
        .chain(&spec.config.keys)
}

/// The keys of a class.
#[utoipa::path(get, path = "/connector-plugins/{class}/config", tag = "plugins", params(("class" = String, Path)), responses(
    (status = 200, body = Vec<KeyView>),
    (status = 404, body = ErrorMessage),
))]
async fn keys(
    State(catalog): State<Arc<Catalog>>,
    extract::Path(class): extract::Path<String>,
) -> Result<Json<Vec<KeyView>>> {
    let spec = spec(&catalog, &class)?;
    Ok(Json(all_keys(&spec).enumerate().map(key_view).collect()))
}

fn key_view((order, key): (usize, &ConfigKey)) -> KeyView {
    KeyView {
        name: key.name.clone(),
        ty: key.ty,
        required: key.required,
        default_value: key.default.clone(),
        importance: key.importance,
        documentation: key.documentation.clone(),
        group: key.group.clone(),
        order: order + 1,
        width: "MEDIUM",
        display_name: key.name.clone(),
        dependents: Vec::new(),
    }
}

/// Checks a configuration: 200 with everything that is wrong, key by key. The plugin is asked too, and may try the servers.
#[utoipa::path(put, path = "/connector-plugins/{class}/config/validate", tag = "plugins", params(("class" = String, Path)),
    request_body = ConfigBody, responses(
        (status = 200, body = ConfigInfos),
        (status = 400, description = "The class of the path is not that of the configuration", body = ErrorMessage),
        (status = 404, body = ErrorMessage),
    ))]
async fn validate(
    State(catalog): State<Arc<Catalog>>,
    extract::Path(class): extract::Path<String>,
    extract::Json(body): extract::Json<ConfigBody>,
) -> Result<Json<ConfigInfos>> {
    let spec = spec(&catalog, &class)?;
    let mut config: ConfigMap = body
        .config
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let given = config
        .entry("connector.class".to_owned())
        .or_insert_with(|| class.clone());
    if catalog
        .spec(given.trim())
        .is_none_or(|other| other.class != spec.class)
    {
        return Err(ApiError::bad_request(format!(
            "the configuration names the class {given}, the path {class}; validate it under its own"
        )));
    }
    let name = config
        .get("name")
        .map_or(class.as_str(), |name| name.trim())
        .to_owned();
    let verdict = catalog.check(&name, &config).await;
    let mut errors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for problem in verdict.errors() {
        // What concerns no key of the class stands with the class itself.
        let of = problem.key.as_deref();
        let known =
            of.filter(|of| all_keys(&spec).any(|key| key.name == *of || key.aliases.iter().any(|a| a == of)));
        let message = if known.is_some() {
            problem.message.clone()
        } else {
            Problem::statement(problem)
        };
        errors
            .entry(known.unwrap_or("connector.class"))
            .or_default()
            .push(message);
    }
    let error_count = errors.values().map(Vec::len).sum();
    let shown = catalog.shown(config);
    let info = |(order, key): (usize, &ConfigKey)| {
        let spellings = std::iter::once(&key.name).chain(&key.aliases);
        let found = spellings.clone().find_map(|name| shown.get(name)).cloned();
        ConfigInfo {
            value: ValueView {
                name: key.name.clone(),
                value: found.or_else(|| key.default.clone()),
                recommended_values: recommended(key),
                errors: spellings
                    .flat_map(|name| errors.get(name.as_str()).cloned().unwrap_or_default())
                    .collect(),
                visible: true,
            },
            definition: key_view((order, key)),
        }
    };
    let configs = all_keys(&spec).enumerate().map(info).collect();
    Ok(Json(ConfigInfos {
        name: spec.class.clone(),
        error_count,
        groups: Vec::new(),
        configs,
    }))
}

fn recommended(key: &ConfigKey) -> Vec<String> {
    match &key.validator {
        Some(tidewater_plugin_api::Validator::OneOf(values)) => values.clone(),
        _ => Vec::new(),
    }
}
