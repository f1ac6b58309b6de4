//! Debezium's ContentBasedRouter: an expression says which topic a record goes to.

use std::sync::Arc;

use cel::Value;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, Validator};

use super::{Transform, Verdict};
use crate::fault::Fault;
use crate::record::Record;
use crate::scripted::{Admission, Script, with_script};
use crate::settings::Settings;

const EXPRESSION: &str = "topic.expression";

pub(crate) fn config() -> ConfigDef {
    with_script(
        ConfigDef::new()
            .required(
                EXPRESSION,
                ConfigType::String,
                Importance::High,
                "The topic of a record: an expression over topic, partition, timestamp, key, value, header, keySchema and \
                 valueSchema that gives its name, or null where it stays, as in value.op == 'u' ? 'updates' : null.",
            )
            .validate(Validator::NonEmpty),
    )
}

pub(crate) struct ContentBasedRouter {
    script: Script,
    /// The last topic that was made: the next is most often the same.
    last: Arc<str>,
}

impl ContentBasedRouter {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        let script = Script::build(settings, EXPRESSION)?;
        Some(Box::new(Self {
            script,
            last: "".into(),
        }))
    }
}

impl Transform for ContentBasedRouter {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        match self.script.admits(record)? {
            Admission::Pass => return Ok(Verdict::Keep),
            Admission::Drop => return Ok(Verdict::Drop),
            Admission::Evaluate => {}
        }
        match self.script.expression.evaluate(record)? {
            Value::Null => {}
            Value::String(topic) if *topic == *record.topic => {}
            Value::String(topic) => {
                if **topic != *self.last {
                    self.last = super::regex_router::checked((*topic).clone(), EXPRESSION)?;
                } else if topic.is_empty() {
                    super::regex_router::checked(String::new(), EXPRESSION)?;
                }
                record.topic = self.last.clone();
            }
            other => return Err(self.script.expression.wrong_result(&other, "string or null")),
        }
        Ok(Verdict::Keep)
    }
}
