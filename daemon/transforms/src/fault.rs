//! What goes wrong with a record: which transform, which part, what it is, what to do. What a record holds is never told.

use std::borrow::Cow;
use std::fmt;

use tidewater_plugin_api::value::DecodeError;

use crate::record::Side;

/// The part of a record that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The whole key or value.
    Whole(Side),
    /// A field of the key or value, by its path.
    Field(Side, String),
    /// The header of this name.
    Header(String),
    /// The topic.
    Topic,
    /// The timestamp.
    Timestamp,
    /// The offset.
    Offset,
}

impl Place {
    pub(crate) fn field(side: Side, path: impl Into<String>) -> Self {
        Self::Field(side, path.into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Whole(side) => write!(f, "the record's {}", side.name()),
            Place::Field(side, path) => write!(f, "field {path:?} of the {}", side.name()),
            Place::Header(name) => write!(f, "header {name:?}"),
            Place::Topic => f.write_str("the record's topic"),
            Place::Timestamp => f.write_str("the record's timestamp"),
            Place::Offset => f.write_str("the record's offset"),
        }
    }
}

/// Why a transform or predicate cannot do its work on a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A part is of a type the transform does not work on.
    #[error("{place} is of type {found}, expected {expected}; {advice}")]
    WrongType {
        /// Where.
        place: Place,
        /// The type found.
        found: &'static str,
        /// The types the transform takes.
        expected: &'static str,
        /// What to do.
        advice: Cow<'static, str>,
    },
    /// A part is not there.
    #[error("{place} is missing; {advice}")]
    Missing {
        /// Where.
        place: Place,
        /// What to do.
        advice: Cow<'static, str>,
    },
    /// A value is of the right type, but it cannot become what is asked for.
    #[error("{place}, of type {found}, cannot become {target}: {reason}; {advice}")]
    Unconvertible {
        /// Where.
        place: Place,
        /// The type found.
        found: &'static str,
        /// What it should become.
        target: &'static str,
        /// Why it cannot.
        reason: Cow<'static, str>,
        /// What to do.
        advice: Cow<'static, str>,
    },
    /// The value does not have the form its schema states.
    #[error(
        "{place} is not what its schema says: {reason}; the connector or converter it came from is at fault"
    )]
    Malformed {
        /// Where.
        place: Place,
        /// What does not fit.
        reason: String,
    },
    /// A topic cannot be made of what the transform found.
    #[error("{place} does not give a topic: {reason}; {advice}")]
    NoTopic {
        /// Where the topic was to come from.
        place: Place,
        /// Why there is none.
        reason: Cow<'static, str>,
        /// What to do.
        advice: Cow<'static, str>,
    },
    /// An expression or pattern cannot be evaluated for this record.
    #[error("{key} cannot be evaluated: {reason}; {advice}")]
    Evaluation {
        /// The configuration key that holds it.
        key: &'static str,
        /// Why.
        reason: String,
        /// What to do.
        advice: Cow<'static, str>,
    },
}

impl Fault {
    pub(crate) fn wrong_type(
        place: Place,
        found: &'static str,
        expected: &'static str,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::WrongType {
            place,
            found,
            expected,
            advice: advice.into(),
        }
    }

    pub(crate) fn missing(place: Place, advice: impl Into<Cow<'static, str>>) -> Self {
        Self::Missing {
            place,
            advice: advice.into(),
        }
    }

    pub(crate) fn unconvertible(
        place: Place,
        found: &'static str,
        target: &'static str,
        reason: impl Into<Cow<'static, str>>,
        advice: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Unconvertible {
            place,
            found,
            target,
            reason: reason.into(),
            advice: advice.into(),
        }
    }

    pub(crate) fn malformed(side: Side, reason: impl Into<String>) -> Self {
        Self::Malformed {
            place: Place::Whole(side),
            reason: reason.into(),
        }
    }

    /// A datum that does not decode.
    pub(crate) fn decode(side: Side) -> impl FnOnce(DecodeError) -> Self {
        move |error| Self::malformed(side, error.0)
    }
}

/// A record that a chain cannot take further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage} (topic {topic}): {fault}")]
pub struct TransformError {
    /// What failed.
    pub stage: Stage,
    /// The record's topic as it was when the stage began.
    pub topic: String,
    /// What is wrong with the record.
    pub fault: Box<Fault>,
}

/// A part of a chain, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A transform.
    Transform {
        /// Its name in `transforms`.
        name: String,
        /// Its class, with the variant.
        class: String,
    },
    /// The predicate of a transform.
    Predicate {
        /// Its name in `predicates`.
        name: String,
        /// Its class.
        class: String,
    },
}

impl Stage {
    /// The stage's class.
    pub fn class(&self) -> &str {
        match self {
            Stage::Transform { class, .. } | Stage::Predicate { class, .. } => class,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Transform { name, class } => write!(f, "transform {name}, a {class}"),
            Stage::Predicate { name, class } => write!(f, "predicate {name}, a {class}"),
        }
    }
}
