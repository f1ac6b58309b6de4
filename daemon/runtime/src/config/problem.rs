//! What is wrong with a configuration: file, line, key, value, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::document::{Fault, Place};

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The connector cannot run as configured.
    Error,
    /// It runs, but perhaps not as meant.
    Warning,
    /// Good to know.
    Note,
}

/// Something wrong with a configuration. Secrets never stand in it (invariant 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The line, from 1, where the format tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column, from 1; only for text that cannot be read at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The key, where it is one key's problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value as it was written, references unresolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is wrong, what is allowed, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem with no place yet.
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            severity,
            file: None,
            line: None,
            column: None,
            key: None,
            value: None,
            message,
        }
    }

    /// An error with no place yet.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    /// A problem of `key`.
    #[must_use]
    pub fn of(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Shows `value`, which must not be secret.
    #[must_use]
    pub fn showing(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Puts the problem in `file`.
    #[must_use]
    pub fn in_file(mut self, file: &Path, place: Option<Place>) -> Self {
        self.file = Some(file.to_owned());
        self.line = place.map(|place| place.line);
        self
    }

    /// What was wrong with the text of `file`.
    pub fn from_fault(file: &Path, fault: Fault) -> Self {
        let mut problem = Self::error(fault.message).in_file(file, fault.place);
        // A key says where it is; text that is no TOML at all needs the column too.
        problem.column = fault
            .place
            .filter(|_| fault.key.is_none())
            .map(|place| place.column);
        problem.key = fault.key;
        problem
    }

    /// Whether the connector cannot run as configured.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `file:line:column`, as far as known; empty where there is no file.
    pub fn place(&self) -> String {
        let Some(file) = &self.file else {
            return String::new();
        };
        let mut place = file.display().to_string();
        for number in [self.line, self.column].into_iter().flatten() {
            place.push(':');
            place.push_str(&number.to_string());
        }
        place
    }

    /// The key, the value where it may be shown, and the message: all but the place.
    pub fn statement(&self) -> String {
        match (&self.key, &self.value) {
            (None, _) => self.message.clone(),
            (Some(key), None) => format!("{key}: {}", self.message),
            (Some(key), Some(value)) => format!("{key} = {value:?}: {}", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_some() {
            write!(f, "{}: ", self.place())?;
        }
        f.write_str(&self.statement())
    }
}
