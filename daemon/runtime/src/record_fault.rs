//! Which part of a record cannot be converted, and why: a fault of that record alone, so that what follows it can go on.

use std::fmt;

use crate::converter::{ConvertError, Converter};
use crate::error::Error;

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
    /// The header of this name.
    Header(String),
    /// All headers, or something between them.
    Headers,
    /// The partition it goes to.
    Partition,
    /// All of it.
    Whole,
}

impl Part {
    /// The stage that works on it, as Kafka Connect names it; none where that has no name.
    pub fn stage(&self) -> Option<&'static str> {
        match self {
            Part::Key => Some("KEY_CONVERTER"),
            Part::Value => Some("VALUE_CONVERTER"),
            Part::Header(_) | Part::Headers => Some("HEADER_CONVERTER"),
            Part::Partition | Part::Whole => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Key => f.write_str("key"),
            Part::Value => f.write_str("value"),
            Part::Header(name) => write!(f, "header {name:?}"),
            Part::Headers => f.write_str("headers"),
            Part::Partition => f.write_str("partition"),
            Part::Whole => f.write_str("record"),
        }
    }
}

/// A record that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {source}")]
pub struct RecordFault {
    /// The part at fault.
    pub part: Part,
    /// The converter that refuses it, by Kafka Connect's class where it has one; none where it was no converter.
    pub class: Option<&'static str>,
    /// Why.
    pub source: ConvertError,
}

impl RecordFault {
    /// What `converter` says of a part.
    pub(crate) fn of(part: Part, converter: &dyn Converter, source: ConvertError) -> Self {
        Self {
            part,
            class: Some(converter.class()),
            source,
        }
    }

    /// The runtime's own finding.
    pub(crate) fn found(part: Part, source: impl fmt::Display) -> Self {
        Self {
            part,
            class: None,
            source: ConvertError(source.to_string()),
        }
    }

    /// The error of a task that does not go on without the record, which `record` says which it is.
    pub fn into_error(self, record: &str) -> Error {
        Error::Convert {
            place: format!("{} of {record}", self.part),
            source: self.source,
        }
    }
}
