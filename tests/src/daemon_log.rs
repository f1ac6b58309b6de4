//! What the daemon logs, one JSON object a line: its events, and the ledgers of its tasks among them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// One event of the daemon's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    object: Value,
}

impl Event {
    /// Reads a line; one that is not JSON, as from a panic before logging is set up, becomes an event with that message.
    pub fn parse(line: &str) -> Self {
        match serde_json::from_str(line) {
            Ok(object @ Value::Object(_)) => Self { object },
            _ => Self {
                object: serde_json::json!({ "level": "ERROR", "message": line }),
            },
        }
    }

    /// A field, wherever in the object the logger puts fields, or in the spans the event is in.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let spans = self
            .object
            .get("spans")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .rev();
        let places = [
            Some(&self.object),
            self.object.get("fields"),
            self.object.get("span"),
        ];
        places
            .into_iter()
            .flatten()
            .chain(spans)
            .find_map(|place| place.get(name))
    }

    /// A field as text, numbers among them.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    /// A field as a number, also when it was logged as text.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// The message.
    pub fn message(&self) -> String {
        self.text("message").unwrap_or_default()
    }

    /// `ERROR`, `WARN`, `INFO`, …
    pub fn level(&self) -> String {
        self.text("level").unwrap_or_default()
    }

    /// Whether it tells of trouble: a warning or an error.
    pub fn is_trouble(&self) -> bool {
        matches!(self.level().as_str(), "ERROR" | "WARN")
    }

    /// All of it in lower case, to look for words in.
    pub fn words(&self) -> String {
        self.object.to_string().to_lowercase()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)
    }
}

/// The books of one task (invariant 10).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records taken from the plugin or from topics.
    pub read: u64,
    /// Records durable in topics, or accepted by the target.
    pub written: u64,
    /// Records dropped on purpose.
    pub filtered: u64,
    /// Records sent to a dead-letter topic.
    pub dead_lettered: u64,
    /// Records given up, as the connector's `errors.tolerance` says.
    pub dropped: u64,
    /// Records on their way.
    pub in_flight: u64,
}

impl Ledger {
    /// Whether nothing has vanished (invariant 10).
    pub fn balances(&self) -> bool {
        self.read == self.written + self.filtered + self.dead_lettered + self.dropped + self.in_flight
    }

    fn of(event: &Event) -> Option<Self> {
        Some(Self {
            read: event.number("read")?,
            written: event.number("written")?,
            filtered: event.number("filtered")?,
            dead_lettered: event.number("dead_lettered")?,
            dropped: event.number("dropped")?,
            in_flight: event.number("in_flight")?,
        })
    }
}

/// The last ledger of each task in these lines, by connector and task number.
pub fn ledgers<'l>(lines: impl IntoIterator<Item = &'l String>) -> BTreeMap<(String, u64), Ledger> {
    let mut last = BTreeMap::new();
    for line in lines.into_iter().filter(|line| line.contains("ledger")) {
        let event = Event::parse(line);
        if let (Some(connector), Some(task), Some(ledger)) =
            (event.text("connector"), event.number("task"), Ledger::of(&event))
        {
            last.insert((connector, task), ledger);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::{Event, ledgers};

    #[test]
    fn fields_are_found_flat_nested_and_in_spans() {
        let nested = Event::parse(
            r#"{"level":"INFO","fields":{"message":"ledger","read":3},"span":{"task":0},"spans":[{"connector":"c"}]}"#,
        );
        assert_eq!(nested.message(), "ledger");
        assert_eq!(nested.number("read"), Some(3));
        assert_eq!(nested.number("task"), Some(0));
        assert_eq!(nested.text("connector").as_deref(), Some("c"));
        assert_eq!(Event::parse("thread 'main' panicked").level(), "ERROR");
    }

    #[test]
    fn the_last_ledger_of_a_task_counts() {
        let line = |read: u64| {
            format!(
                r#"{{"level":"INFO","message":"ledger","connector":"c","task":0,"read":{read},"written":2,"filtered":1,"dead_lettered":0,"dropped":0,"in_flight":0}}"#
            )
        };
        let lines = [line(2), line(3), "{}".to_owned()];
        let last = ledgers(&lines)[&("c".to_owned(), 0)];
        assert_eq!(last.read, 3);
        assert!(last.balances());
        assert!(!ledgers(&lines[..1])[&("c".to_owned(), 0)].balances());
    }
}
