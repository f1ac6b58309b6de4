//! HeaderFrom: fields of the key or value become headers, copied or moved.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, SchemaRef, Validator, Value};

use super::{Transform, Verdict};
use crate::edit::{require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::path::{FieldPath, PathTree, value_at};
use crate::plan_cache::PlanCache;
use crate::record::{Datum, Header, Record, Side};
use crate::selection::{Rules, Selection, select_map};
use crate::settings::{Settings, with_defaults, with_paths};

const FIX: &str =
    "HeaderFrom reads the fields of a struct or map; remove the transform, or put it elsewhere in the chain";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(
        ConfigDef::new()
            .required(
                "fields",
                ConfigType::List,
                Importance::High,
                "The fields to make headers of.",
            )
            .validate(Validator::NonEmpty)
            .required(
                "headers",
                ConfigType::List,
                Importance::High,
                "The names of the headers, in the order of the fields.",
            )
            .validate(Validator::NonEmpty)
            .required(
                "operation",
                ConfigType::String,
                Importance::High,
                "move takes the fields away, copy leaves them.",
            )
            .one_of(&["move", "copy"]),
    ))
}

pub(crate) struct HeaderFrom {
    side: Side,
    replaces_null: bool,
    paths: Vec<FieldPath>,
    names: Vec<Arc<str>>,
    /// What goes; none for copies.
    moved: Option<PathTree>,
    plans: PlanCache<Plan>,
}

struct Plan {
    sources: Vec<(Vec<usize>, SchemaRef)>,
    rest: Option<Selection>,
}

impl HeaderFrom {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        let paths = settings.paths("fields");
        let names: Vec<Arc<str>> = settings
            .list("headers")
            .iter()
            .map(|name| name.as_str().into())
            .collect();
        let (fields, headers) = (settings.list("fields").len(), names.len());
        if fields != headers {
            settings.problem(
                "headers",
                format!("has {headers} names for {fields} fields; name one header for each field"),
            );
        }
        let moves = settings.text("operation").eq_ignore_ascii_case("move");
        let moved = moves.then(|| settings.tree("fields", &paths));
        Some(Box::new(Self {
            side,
            replaces_null: settings.replaces_null(),
            paths,
            names,
            moved,
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for HeaderFrom {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (side, paths, moved) = (self.side, &self.paths, self.moved.as_ref());
        let replaces_null = self.replaces_null;
        let (datum, headers) = match side {
            Side::Key => (&mut record.key, &mut record.headers),
            Side::Value => (&mut record.value, &mut record.headers),
        };
        if datum.is_null() {
            return Ok(Verdict::Keep);
        }
        let rules = Rules {
            include: None,
            exclude: moved,
            renames: None,
            names: &[],
        };
        let Some(schema) = datum.schema().cloned() else {
            let value = datum.value_mut().map_err(Fault::decode(side))?;
            require_map(side, value, FIX)?;
            for (path, name) in paths.iter().zip(&self.names) {
                let found = path.find_in(value).cloned().unwrap_or(Value::Null);
                headers.push(Header::new(name.clone(), Datum::new(None, found)));
            }
            if moved.is_some() {
                select_map(require_map(side, value, FIX)?, rules);
            }
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let plan = self.plans.get(&schema, || {
            let source = |path: &FieldPath| {
                let found = path.locate(&schema);
                let found = found.and_then(|found| Some((found.indices, found.schema?.clone())));
                found.ok_or_else(|| {
                    Fault::missing(
                        Place::field(side, path.text()),
                        "name fields of the schema; a nested one needs field.syntax.version=V2",
                    )
                })
            };
            Ok::<_, Fault>(Plan {
                sources: paths.iter().map(source).collect::<Result<_, _>>()?,
                rest: moved.map(|_| Selection::new(&schema, rules, replaces_null)),
            })
        })?;
        let value = datum.value().map_err(Fault::decode(side))?;
        for ((indices, schema), name) in plan.sources.iter().zip(&self.names) {
            let found = match value_at(value, indices) {
                None | Some(Value::Null) => match &schema.default {
                    Some(default) if replaces_null => default.clone(),
                    _ => Value::Null,
                },
                Some(found) => found.clone(),
            };
            headers.push(Header::new(name.clone(), Datum::new(Some(schema.clone()), found)));
        }
        if let Some(rest) = &plan.rest {
            let mut value = datum.take().map_err(Fault::decode(side))?;
            rest.apply(side, &mut value)?;
            datum.set(Some(rest.schema.clone()), value);
        }
        Ok(Verdict::Keep)
    }
}
