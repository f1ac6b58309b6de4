//! What is done about a record that cannot be taken further: it ends the task, or it is tolerated, and then it goes to the
//! dead-letter topic or is dropped; and what is said of it.

use crate::config::{ConnectorConfig, ErrorSettings, Redactor};
use crate::dead_letters::{DeadLetter, DeadLetterTopic, Origin, context_headers};
use crate::error::{Error, Result};
use crate::failure::Failure;

/// The most of a key or value that is logged, in bytes.
const SHOWN_BYTES: usize = 1024;

/// What becomes of a record that failed and is tolerated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to the dead-letter topic.
    DeadLetter(DeadLetter),
    /// It is dropped, as nothing else was asked for.
    Dropped,
}

/// Decides for one task.
pub struct RecordErrors {
    /// What the connector's configuration says.
    pub settings: ErrorSettings,
    /// The connector's name.
    pub connector: String,
    /// The task's number.
    pub task: u32,
    /// The connector's class, which failed where no converter and no transform did.
    pub class: String,
    /// Takes secrets out of what is said (invariant 8).
    pub redactor: Redactor,
}

impl RecordErrors {
    /// As `config` says, for its task number `task`.
    pub fn new(config: &ConnectorConfig, task: u32) -> Self {
        Self {
            settings: config.errors.clone(),
            connector: config.name.clone(),
            task,
            class: config.class.clone(),
            redactor: config.redactor.clone(),
        }
    }

    /// The topic for dead letters, where there is one.
    pub fn dead_letter_topic(&self) -> Option<&DeadLetterTopic> {
        self.settings
            .dead_letter_topic
            .as_ref()
            .filter(|_| self.settings.tolerate)
    }

    /// What becomes of a record that failed with `fault`; an error where that is not tolerated. `content` is asked for the
    /// record as it was only where it is needed.
    pub fn judge(
        &self,
        fault: Failure,
        origin: &Origin,
        content: impl FnOnce() -> DeadLetter,
    ) -> Result<Fate> {
        let message = self.redactor.redact(&fault.to_string());
        let class = fault.class.clone().unwrap_or_else(|| self.class.clone());
        let shown = self.settings.log && self.settings.log_contents;
        let kept = self.dead_letter_topic();
        let content = (shown || kept.is_some()).then(content);
        if self.settings.log {
            let shown = content.as_ref().filter(|_| shown);
            self.log(&fault, &message, &class, origin, shown);
        }
        if !self.settings.tolerate {
            return Err(Error::Record(fault));
        }
        let (Some(topic), Some(mut letter)) = (kept, content) else {
            return Ok(Fate::Dropped);
        };
        if topic.context_headers {
            let context = context_headers(&self.connector, self.task, origin, &fault, &class, &message);
            letter.headers.extend(context);
        }
        Ok(Fate::DeadLetter(letter))
    }

    fn log(
        &self,
        fault: &Failure,
        message: &str,
        class: &str,
        origin: &Origin,
        content: Option<&DeadLetter>,
    ) {
        let text = |bytes: &Option<Vec<u8>>| {
            let bytes = bytes.as_ref()?;
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
            Some(self.redactor.redact(&shown))
        };
        let (key, value) = content.map_or((None, None), |content| (text(&content.key), text(&content.value)));
        tracing::error!(
            error = message,
            stage = fault.stage.name(),
            class,
            topic = origin.topic,
            partition = origin.partition,
            offset = origin.offset,
            key,
            value,
            tolerated = self.settings.tolerate,
            "a record cannot be taken further"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Stage;

    fn errors(tolerate: bool, dead_letter_topic: Option<bool>) -> RecordErrors {
        let mut redactor = Redactor::default();
        redactor.hide("hunter22", "[hidden]");
        RecordErrors {
            settings: ErrorSettings {
                tolerate,
                dead_letter_topic: dead_letter_topic.map(|context_headers| DeadLetterTopic {
                    name: "dead".into(),
                    context_headers,
                }),
                ..ErrorSettings::default()
            },
            connector: "orders".into(),
            task: 2,
            class: "postgres-sink".into(),
            redactor,
        }
    }

    fn judge(errors: &RecordErrors, stage: Stage) -> Result<Fate> {
        let fault = Failure::new(
            stage,
            "record at offset 7 of shop-1",
            "password hunter22 is not JSON",
        );
        let origin = Origin {
            topic: "shop".into(),
            partition: Some(1),
            offset: Some(7),
        };
        let content = || DeadLetter {
            key: Some(b"k".to_vec()),
            value: Some(b"{".to_vec()),
            headers: vec![("trace".into(), Some(b"a".to_vec()))],
            timestamp: 5,
        };
        errors.judge(fault, &origin, content)
    }

    #[test]
    fn what_is_not_tolerated_ends_the_task_even_with_a_dead_letter_topic() {
        for topic in [None, Some(true)] {
            let error = judge(&errors(false, topic), Stage::ValueConverter).unwrap_err();
            assert!(error.to_string().contains("offset 7 of shop-1"), "{error}");
        }
    }

    #[test]
    fn what_is_tolerated_is_dropped_or_kept_as_it_was() {
        assert_eq!(judge(&errors(true, None), Stage::Put).unwrap(), Fate::Dropped);
        let Fate::DeadLetter(letter) = judge(&errors(true, Some(false)), Stage::Put).unwrap() else {
            panic!("there is a dead-letter topic");
        };
        assert_eq!(letter.headers, [("trace".to_owned(), Some(b"a".to_vec()))]);
        assert_eq!((letter.key, letter.timestamp), (Some(b"k".to_vec()), 5));
    }

    #[test]
    fn dead_letters_carry_kafka_connects_headers_and_no_secret() {
        for (stage, class, name) in [
            (Stage::HeaderConverter, "postgres-sink", "HEADER_CONVERTER"),
            (Stage::Put, "postgres-sink", "TASK_PUT"),
        ] {
            let Fate::DeadLetter(letter) = judge(&errors(true, Some(true)), stage).unwrap() else {
                panic!("there is a dead-letter topic");
            };
            let text = |(name, value): &(String, Option<Vec<u8>>)| {
                (name.clone(), String::from_utf8(value.clone().unwrap()).unwrap())
            };
            let headers: Vec<_> = letter.headers[1..].iter().map(text).collect();
            let message = "record at offset 7 of shop-1: password [hidden] is not JSON";
            let expected = [
                ("topic", "shop"),
                ("partition", "1"),
                ("offset", "7"),
                ("connector.name", "orders"),
                ("task.id", "2"),
                ("stage", name),
                ("class.name", class),
                ("exception.class.name", stage.exception()),
                ("exception.message", message),
                (
                    "exception.stacktrace",
                    &format!("{}: {message}", stage.exception()),
                ),
            ]
            .map(|(name, value)| (format!("__connect.errors.{name}"), value.to_owned()));
            assert_eq!(headers, expected);
        }
    }
}
