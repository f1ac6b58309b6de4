//! A part of a change event by the name a configuration gives it: `op`, `source.lsn`, `table:origin`.

use std::sync::Arc;

use super::super::envelope::{OPERATION, SOURCE, TRANSACTION};

/// A part of a change event, and the name it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldReference {
    /// The struct it is in; none for the event itself.
    pub parent: Option<String>,
    /// The field.
    pub field: String,
    /// The name of the new field or header.
    pub name: Arc<str>,
}

impl FieldReference {
    pub(super) fn parse(text: &str, prefix: &str) -> Result<Self, String> {
        let fault =
            || format!("{text:?} names no part of an event; write field, struct.field, or either with :name");
        let mut parts = text.split(':');
        let (reference, name) = (parts.next().unwrap_or_default(), parts.next());
        let mut steps = reference.split('.');
        let (first, second) = (steps.next().unwrap_or_default(), steps.next());
        if parts.next().is_some() || steps.next().is_some() || first.is_empty() {
            return Err(fault());
        }
        let (parent, field) = match second {
            Some("") => return Err(fault()),
            Some(field) => (Some(first.to_owned()), field),
            None => (parent_of(first).map(ToOwned::to_owned), first),
        };
        let plain = match (name, second) {
            (Some(""), _) => return Err(fault()),
            (Some(name), _) => name.to_owned(),
            (None, Some(field)) => format!("{first}_{field}"),
            (None, None) => field.to_owned(),
        };
        Ok(Self {
            parent,
            field: field.to_owned(),
            name: format!("{prefix}{plain}").into(),
        })
    }

    /// Whether this is the kind of the change.
    pub(super) fn is_operation(&self) -> bool {
        self.parent.is_none() && self.field == OPERATION
    }
}

/// The struct of a field that is named alone.
fn parent_of(field: &str) -> Option<&'static str> {
    match field {
        "id" | "data_collection_order" | "total_order" => Some(TRANSACTION),
        OPERATION | "ts_ms" | "ts_us" | "ts_ns" => None,
        _ => Some(SOURCE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_debezium() {
        let table = [
            ("op", None, "op", "__op"),
            ("ts_ms", None, "ts_ms", "__ts_ms"),
            ("table", Some("source"), "table", "__table"),
            ("source.ts_ms", Some("source"), "ts_ms", "__source_ts_ms"),
            ("total_order", Some("transaction"), "total_order", "__total_order"),
            ("table:origin", Some("source"), "table", "__origin"),
            ("source.lsn:at", Some("source"), "lsn", "__at"),
        ];
        for (text, parent, field, name) in table {
            let reference = FieldReference::parse(text, "__").expect(text);
            assert_eq!(
                (reference.parent.as_deref(), &*reference.field, &*reference.name),
                (parent, field, name)
            );
        }
        for text in ["", ".", "a.", ".a", "a.b.c", "a:b:c", "a:"] {
            assert!(FieldReference::parse(text, "__").is_err(), "{text}");
        }
    }
}
