//! ByLogicalTableRouter: the topics of several physical tables become one, and keys say which table they are of.

use std::collections::HashMap;
use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Field, Importance, Schema, SchemaRef, Type, Validator, Value};

use super::envelope::{AFTER, BEFORE, is_envelope};
use super::{Transform, Verdict};
use crate::edit::struct_fields;
use crate::fault::{Fault, Place};
use crate::java_regex::{Replacement, TopicCache, WholeMatch};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::Settings;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .required(
            "topic.regex",
            ConfigType::String,
            Importance::Low,
            "The regular expression that the whole name of the topic must match.",
        )
        .validate(Validator::NonEmpty)
        .required(
            "topic.replacement",
            ConfigType::String,
            Importance::Low,
            "The topic's new name; $1 and ${name} stand for the groups of the expression.",
        )
        .validate(Validator::NonEmpty)
        .optional(
            "key.enforce.uniqueness",
            ConfigType::Boolean,
            "true",
            Importance::Low,
            "Whether keys get a field that says which table they are of, so that those of two tables stay apart.",
        )
        .optional(
            "key.field.name",
            ConfigType::String,
            "__dbz__physicalTableIdentifier",
            Importance::Low,
            "The name of that field.",
        )
        .validate(Validator::NonEmpty)
        .nullable(
            "key.field.regex",
            ConfigType::String,
            Importance::Low,
            "The regular expression that makes what the field says of the topic's old name; without it, that name.",
        )
        .nullable(
            "key.field.replacement",
            ConfigType::String,
            Importance::Low,
            "What the field says, with $1 and ${name} for the groups of key.field.regex.",
        )
}

pub(crate) struct ByLogicalTableRouter {
    pattern: WholeMatch,
    replacement: Replacement,
    key_field: Option<KeyField>,
    routes: TopicCache<Option<Route>>,
    plans: HashMap<Arc<str>, Plans>,
}

struct KeyField {
    name: Arc<str>,
    rule: Option<(WholeMatch, Replacement)>,
}

#[derive(Clone)]
struct Route {
    topic: Arc<str>,
    /// What the key's new field says.
    table: String,
}

/// What schemas become in one new topic.
#[derive(Default)]
struct Plans {
    keys: PlanCache<SchemaRef>,
    values: PlanCache<SchemaRef>,
}

impl ByLogicalTableRouter {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        let unique = settings.bool("key.enforce.uniqueness");
        let (regex, replacement) = (
            settings.given("key.field.regex").is_some(),
            settings.given("key.field.replacement").is_some(),
        );
        let rule = match (regex, replacement) {
            (true, true) => {
                super::regex_router::pattern(settings, "key.field.regex", "key.field.replacement")
            }
            (true, false) => {
                settings.problem("key.field.replacement", "is missing; key.field.regex needs it");
                None
            }
            (false, true) => {
                settings.problem("key.field.regex", "is missing; key.field.replacement needs it");
                None
            }
            (false, false) => None,
        };
        let (pattern, replacement) =
            super::regex_router::pattern(settings, "topic.regex", "topic.replacement")?;
        Some(Box::new(Self {
            pattern,
            replacement,
            key_field: unique.then(|| KeyField {
                name: settings.text("key.field.name").into(),
                rule,
            }),
            routes: TopicCache::default(),
            plans: HashMap::new(),
        }))
    }
}

impl Transform for ByLogicalTableRouter {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        /// More topics than most workers have; beyond it the plans start anew.
        const TOPICS: usize = 4096;
        let (pattern, replacement, key_field) = (&self.pattern, &self.replacement, &self.key_field);
        let route = self.routes.get(&record.topic, || {
            let Some(topic) = pattern.replace(&record.topic, replacement)? else {
                return Ok(None);
            };
            let rule = key_field.as_ref().and_then(|field| field.rule.as_ref());
            let table = match rule {
                Some((pattern, replacement)) => pattern.replace(&record.topic, replacement)?,
                None => None,
            };
            Ok(Some(Route {
                topic: super::regex_router::checked(topic, "topic.replacement")?,
                table: table.unwrap_or_else(|| (*record.topic).to_owned()),
            }))
        })?;
        let Some(route) = route else {
            return Ok(Verdict::Keep);
        };
        if self.plans.len() >= TOPICS && !self.plans.contains_key(&route.topic) {
            self.plans.clear();
        }
        let plans = self.plans.entry(route.topic.clone()).or_default();
        reroute_key(record, &route, key_field.as_ref(), &mut plans.keys)?;
        // Tombstones, heartbeats and schema changes keep their value.
        if let Some(schema) = record.value.schema().filter(|schema| is_envelope(schema)) {
            let topic = &route.topic;
            let plan = plans.values.get::<Fault>(schema, || Ok(renamed(schema, topic)))?;
            record.value.set_schema((*plan).clone());
        }
        record.topic = route.topic;
        Ok(Verdict::Keep)
    }
}

fn reroute_key(
    record: &mut Record,
    route: &Route,
    key_field: Option<&KeyField>,
    plans: &mut PlanCache<SchemaRef>,
) -> Result<(), Fault> {
    if record.key.is_null() {
        return Ok(()); // of a table without primary key
    }
    let Some(schema) = record.key.schema().cloned() else {
        let Some(field) = key_field else { return Ok(()) };
        let value = record.key.value_mut().map_err(Fault::decode(Side::Key))?;
        let Value::Map(pairs) = value else {
            return Err(no_struct(value.kind()));
        };
        pairs.push((
            Value::String((*field.name).to_owned()),
            Value::String(route.table.clone()),
        ));
        return Ok(());
    };
    let width = schema.fields().len();
    let plan = plans.get(&schema, || {
        let Type::Struct(fields) = &schema.ty else {
            return match key_field {
                Some(_) => Err(no_struct(schema.ty.name())),
                None => Ok(schema.clone()),
            };
        };
        let mut new = (*schema).clone();
        new.name = Some(format!("{}.Key", route.topic).into());
        if let Some(field) = key_field {
            if schema.field(&field.name).is_some() {
                return Err(Fault::wrong_type(
                    Place::field(Side::Key, &*field.name),
                    "a field of the key",
                    "a name that is free",
                    "set key.field.name",
                ));
            }
            let mut fields = fields.clone();
            fields.push(Field::new(field.name.clone(), Schema::new(Type::String)));
            new.default = None;
            new.ty = Type::Struct(fields);
        }
        Ok(Arc::new(new))
    })?;
    let new = (*plan).clone();
    if key_field.is_some() {
        let mut key = record.key.take().map_err(Fault::decode(Side::Key))?;
        struct_fields(Side::Key, &mut key, width)?.push(Value::String(route.table.clone()));
        record.key.set(Some(new), key);
    } else {
        record.key.set_schema(new);
    }
    Ok(())
}

fn no_struct(found: &'static str) -> Fault {
    Fault::wrong_type(
        Place::Whole(Side::Key),
        found,
        "struct or map",
        "set key.enforce.uniqueness=false, if the keys of all tables are distinct",
    )
}

/// The schema of an event with the names of the topic it goes to.
fn renamed(schema: &SchemaRef, topic: &str) -> SchemaRef {
    let mut new = (**schema).clone();
    new.name = Some(format!("{topic}.Envelope").into());
    if let Type::Struct(fields) = &mut new.ty {
        for field in fields
            .iter_mut()
            .filter(|field| [BEFORE, AFTER].contains(&&*field.name))
        {
            let mut row = (*field.schema).clone();
            row.name = Some(format!("{topic}.Value").into());
            field.schema = Arc::new(row);
        }
    }
    Arc::new(new)
}
