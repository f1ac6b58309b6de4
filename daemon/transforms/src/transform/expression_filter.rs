//! Debezium's Filter: records that meet a condition stay, the others go.

use cel::Value;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, Validator};

use super::{Transform, Verdict};
use crate::fault::Fault;
use crate::record::Record;
use crate::scripted::{Admission, Script, with_script};
use crate::settings::Settings;

const CONDITION: &str = "condition";

pub(crate) fn config() -> ConfigDef {
    with_script(
        ConfigDef::new()
            .required(
                CONDITION,
                ConfigType::String,
                Importance::High,
                "The condition a record must meet to stay: an expression over topic, partition, timestamp, key, value, header, \
                 keySchema and valueSchema, as in value.op == 'u' && value.after.id > 10.",
            )
            .validate(Validator::NonEmpty),
    )
}

pub(crate) struct ExpressionFilter {
    script: Script,
}

impl ExpressionFilter {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        let script = Script::build(settings, CONDITION)?;
        Some(Box::new(Self { script }))
    }
}

impl Transform for ExpressionFilter {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        match self.script.admits(record)? {
            Admission::Pass => Ok(Verdict::Keep),
            Admission::Drop => Ok(Verdict::Drop),
            Admission::Evaluate => match self.script.expression.evaluate(record)? {
                Value::Bool(true) => Ok(Verdict::Keep),
                Value::Bool(false) => Ok(Verdict::Drop),
                other => Err(self.script.expression.wrong_result(&other, "bool")),
            },
        }
    }
}
