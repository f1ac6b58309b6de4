//! What the transforms with an expression have in common: the language, the topics they work on, and nulls.

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance};

use crate::expression::Expression;
use crate::fault::Fault;
use crate::java_regex::{TopicCache, WholeMatch};
use crate::record::Record;
use crate::settings::Settings;

/// Adds the keys of every transform with an expression.
pub(crate) fn with_script(def: ConfigDef) -> ConfigDef {
    def.optional(
        "language",
        ConfigType::String,
        "cel",
        Importance::Medium,
        "The language of the expression: cel, the Common Expression Language.",
    )
    .nullable(
        "topic.regex",
        ConfigType::String,
        Importance::Medium,
        "The regular expression that the whole name of a topic must match for its records to be looked at; the others pass.",
    )
    .optional(
        "null.handling.mode",
        ConfigType::String,
        "keep",
        Importance::Medium,
        "What becomes of records whose value is null: keep and drop do not look at them, evaluate does.",
    )
    .one_of(&["keep", "drop", "evaluate"])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nulls {
    Keep,
    Drop,
    Evaluate,
}

/// Whether a record is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It passes as it is.
    Pass,
    /// It goes.
    Drop,
    /// It is looked at.
    Evaluate,
}

/// An expression and which records it is for.
pub(crate) struct Script {
    pub expression: Expression,
    topics: Option<WholeMatch>,
    admitted: TopicCache<bool>,
    nulls: Nulls,
}

impl Script {
    /// The script whose expression stands under `key`; what is wrong is noted.
    pub(crate) fn build(settings: &mut Settings, key: &'static str) -> Option<Self> {
        let language = settings.text("language").to_ascii_lowercase();
        if language != "cel" && language != "jsr223.cel" {
            let problem = if language.contains("groovy") {
                "is Groovy, which needs a JVM; set language=cel and write the expression in CEL, which is close: \
                 value.op == 'u' && value.before.id == 2"
            } else {
                "is not supported; set language=cel and write the expression in CEL: value.op == 'u' && value.before.id == 2"
            };
            settings.problem("language", problem);
            return None;
        }
        let mut topics = None;
        if let Some(pattern) = settings.given("topic.regex").map(ToOwned::to_owned) {
            match WholeMatch::new(&pattern, "topic.regex") {
                Ok(pattern) => topics = Some(pattern),
                Err(error) => settings.problem("topic.regex", error),
            }
        }
        let nulls = match settings.text("null.handling.mode").to_ascii_lowercase().as_str() {
            "drop" => Nulls::Drop,
            "evaluate" => Nulls::Evaluate,
            _ => Nulls::Keep,
        };
        match Expression::new(settings.text(key), key) {
            Ok(expression) => Some(Self {
                expression,
                topics,
                admitted: TopicCache::default(),
                nulls,
            }),
            Err(error) => {
                settings.problem(key, error);
                None
            }
        }
    }

    /// Whether `record` is to be looked at.
    pub(crate) fn admits(&mut self, record: &Record) -> Result<Admission, Fault> {
        if let Some(topics) = &self.topics
            && !self
                .admitted
                .get(&record.topic, || topics.matches(&record.topic))?
        {
            return Ok(Admission::Pass);
        }
        Ok(match self.nulls {
            Nulls::Keep if record.value.is_null() => Admission::Pass,
            Nulls::Drop if record.value.is_null() => Admission::Drop,
            _ => Admission::Evaluate,
        })
    }
}
