//! Why a single record cannot be taken further: which one, and its stage in Kafka Connect's terms.

use crate::record_fault::{Part, RecordFault};

/// The stage of a record's way at which it stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The conversion of its key.
    KeyConverter,
    /// The conversion of its value.
    ValueConverter,
    /// The conversion of its headers.
    HeaderConverter,
    /// A transform or its predicate.
    Transformation,
    /// The write to its topic.
    Produce,
    /// The write to a sink's target.
    Put,
}

impl Stage {
    /// Kafka Connect's name, as dead letters carry it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::KeyConverter => "KEY_CONVERTER",
            Stage::ValueConverter => "VALUE_CONVERTER",
            Stage::HeaderConverter => "HEADER_CONVERTER",
            Stage::Transformation => "TRANSFORMATION",
            Stage::Produce => "KAFKA_PRODUCE",
            Stage::Put => "TASK_PUT",
        }
    }

    /// The exception that Kafka Connect would name at this stage: what reads dead letters may know it.
    pub fn exception(self) -> &'static str {
        match self {
            Stage::Produce | Stage::Put => "org.apache.kafka.connect.errors.ConnectException",
            _ => "org.apache.kafka.connect.errors.DataException",
        }
    }
}

/// A record that cannot be taken further, whatever is tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Failure {
    /// The stage it failed at.
    pub stage: Stage,
    /// The class that failed on it, where it is another than the stage's converter or the connector itself.
    pub class: Option<String>,
    /// Which record: topic, and partition and offset where it has them; the part of it that is at fault.
    pub place: String,
    /// Why, and what to do. What the record holds is not told.
    pub reason: String,
}

impl Failure {
    /// A fault at `stage` of the record at `place`.
    pub fn new(stage: Stage, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            stage,
            class: None,
            place: place.into(),
            reason: reason.into(),
        }
    }

    /// A fault of the record at `place` that a converter, or what stands around it, has found.
    pub fn of(fault: RecordFault, place: &str) -> Self {
        let stage = match &fault.part {
            Part::Key => Stage::KeyConverter,
            Part::Value => Stage::ValueConverter,
            Part::Header(_) | Part::Headers => Stage::HeaderConverter,
            Part::Partition | Part::Whole => Stage::Produce,
        };
        Self {
            class: fault.class.map(str::to_owned),
            ..Self::new(stage, format!("{} of {place}", fault.part), fault.source.0)
        }
    }
}
