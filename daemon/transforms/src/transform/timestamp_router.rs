//! TimestampRouter: a topic for each span of time.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance};

use super::{Transform, Verdict};
use crate::date_format::DateFormat;
use crate::fault::{Fault, Place};
use crate::record::Record;
use crate::settings::Settings;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .optional(
            "topic.format",
            ConfigType::String,
            "${topic}-${timestamp}",
            Importance::High,
            "The topic's new name, with ${topic} and ${timestamp} in it.",
        )
        .optional(
            "timestamp.format",
            ConfigType::String,
            "yyyyMMdd",
            Importance::High,
            "How the timestamp is written: a pattern of Java's SimpleDateFormat, in UTC.",
        )
}

pub(crate) struct TimestampRouter {
    topic_format: String,
    format: DateFormat,
    text: String,
    /// The last topic and time, and the topic they gave: the next record is most often of the same.
    last: Option<(Arc<str>, String, Arc<str>)>,
}

impl TimestampRouter {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        match DateFormat::new(settings.untrimmed("timestamp.format").unwrap_or_default()) {
            Ok(format) => Some(Box::new(Self {
                topic_format: settings.text("topic.format").to_owned(),
                format,
                text: String::new(),
                last: None,
            })),
            Err(error) => {
                settings.problem("timestamp.format", format!("is no pattern: {error}"));
                None
            }
        }
    }
}

impl Transform for TimestampRouter {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let Some(timestamp) = record.timestamp else {
            return Err(Fault::missing(
                Place::Timestamp,
                "the connector states none; remove the transform",
            ));
        };
        self.text.clear();
        if self.format.format(timestamp, &mut self.text).is_none() {
            return Err(Fault::NoTopic {
                place: Place::Timestamp,
                reason: "it lies beyond the years -9999 to 9999".into(),
                advice: "check what the source takes for milliseconds".into(),
            });
        }
        if let Some((topic, time, routed)) = &self.last
            && *topic == record.topic
            && *time == self.text
        {
            record.topic = routed.clone();
            return Ok(Verdict::Keep);
        }
        let routed = self
            .topic_format
            .replace("${topic}", &record.topic)
            .replace("${timestamp}", &self.text);
        let routed = super::regex_router::checked(routed, "topic.format")?;
        let topic = std::mem::replace(&mut record.topic, routed.clone());
        self.last = Some((topic, self.text.clone(), routed));
        Ok(Verdict::Keep)
    }
}
