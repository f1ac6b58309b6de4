//! The outside ledger (invariants 5 and 10): the change events of the topics against what the source's audit says was committed, key by
//! key and in order. Each created or updated row has a revision of its own, so a lost, doubled, invented or misplaced event shows.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::postgres::Postgres;
use crate::shop::DATABASE;
use crate::topics::TopicRecord;

/// One change of a row: `c`, `u` or `d`, and the row's revision after it.
type Change = (String, Option<i64>);

/// The changes of each row, by table and key, in order.
type Histories = BTreeMap<(String, String), Vec<Change>>;

/// Whether the stream began before the first audited change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All audited changes must be in the topics.
    Everything,
    /// The snapshot was taken while the first of them were committed: for each key it stands for the earliest ones.
    AfterSnapshot,
}

/// What the topics hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows read by the snapshot.
    pub snapshot: u64,
    /// Changes: creates, updates and deletes.
    pub changes: u64,
    /// Tombstones.
    pub tombstones: u64,
}

impl Totals {
    /// All records.
    pub fn records(self) -> u64 {
        self.snapshot + self.changes + self.tombstones
    }
}

/// How keys and values stand in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"schema": …, "payload": …}`, as the JSON converter writes topics.
    WithSchemas,
    /// The payload alone, as the file sink writes lines.
    Plain,
}

impl Form {
    fn read<T: DeserializeOwned>(self, json: &[u8]) -> serde_json::Result<T> {
        #[derive(Deserialize)]
        struct WithSchema<T> {
            payload: T,
        }
        match self {
            Self::WithSchemas => serde_json::from_slice(json).map(|WithSchema { payload }| payload),
            Self::Plain => serde_json::from_slice(json),
        }
    }
}

/// The change events of topics, taken in one after the other.
#[derive(Debug)]
pub struct Streamed {
    form: Form,
    histories: Histories,
    snapshot: HashSet<(String, String)>,
    totals: Totals,
    /// The delete in each partition whose tombstone must come next: its key.
    deleted: HashMap<(String, u32), String>,
}

#[derive(Deserialize)]
struct Envelope {
    op: String,
    #[serde(default)]
    after: Option<After>,
}

#[derive(Deserialize)]
struct After {
    rev: Option<i64>,
}

impl Streamed {
    /// None yet, of records of this form.
    pub fn new(form: Form) -> Self {
        Self {
            form,
            histories: Histories::new(),
            snapshot: HashSet::new(),
            totals: Totals::default(),
            deleted: HashMap::new(),
        }
    }

    /// Takes in the next record of a partition. Each delete must be followed by its tombstone, and each snapshot row must come once
    /// and before the changes of its key.
    pub fn take(&mut self, record: TopicRecord<'_>) -> Result<()> {
        let fault = |what: &str| {
            let TopicRecord {
                topic,
                partition,
                offset,
                ..
            } = record;
            Err(Error::Different(format!(
                "{topic}-{partition} offset {offset}: {what}"
            )))
        };
        let key = match record.key.map(|key| self.form.read(key)) {
            Some(Ok(columns)) => key_text(&columns),
            _ => return fault("the key is no JSON object"),
        };
        let event: Option<Envelope> = match record.value.map(|value| self.form.read(value)) {
            None => None,
            Some(Ok(event)) => Some(event),
            Some(Err(error)) => return fault(&format!("the value is no envelope: {error}")),
        };
        let place = (record.topic.to_owned(), record.partition);
        let Some(Envelope { op, after }) = event else {
            self.totals.tombstones += 1;
            return match self.deleted.remove(&place) {
                Some(of) if of == key => Ok(()),
                _ => fault("a tombstone that follows no delete of its key"),
            };
        };
        if let Some(of) = self.deleted.get(&place) {
            return fault(&format!("the delete of ({of}) before it has no tombstone"));
        }
        let table = record.topic.rsplit('.').next().unwrap_or_default().to_owned();
        let id = (table, key);
        let rev = after.and_then(|after| after.rev);
        match op.as_str() {
            "r" if self.histories.contains_key(&id) => {
                return fault("the snapshot's row comes after a change of it");
            }
            "r" if !self.snapshot.insert(id.clone()) => return fault("the snapshot has this row twice"),
            "r" => self.totals.snapshot += 1,
            "c" | "u" if rev.is_none() => return fault("a change without the row's revision"),
            "c" | "u" | "d" => {
                self.totals.changes += 1;
                if op == "d" {
                    self.deleted.insert(place, id.1.clone());
                }
                self.histories.entry(id).or_default().push((op, rev));
            }
            other => return fault(&format!("an unexpected op {other:?}")),
        }
        Ok(())
    }

    /// Proves that the topics hold each audited change exactly once and in each key's order.
    pub async fn balance(self, source: &Postgres, coverage: Coverage) -> Result<Totals> {
        if let Some(((topic, partition), of)) = self.deleted.iter().next() {
            return Err(Error::Different(format!(
                "the last delete of {topic}-{partition}, of ({of}), has no tombstone"
            )));
        }
        let audited = audited(source).await?;
        let none = Vec::new();
        let mut faults = Vec::new();
        for key in audited
            .keys()
            .chain(self.histories.keys().filter(|key| !audited.contains_key(*key)))
        {
            let expected = audited.get(key).unwrap_or(&none);
            let found = self.histories.get(key).unwrap_or(&none);
            let right = match coverage {
                Coverage::Everything => expected == found,
                Coverage::AfterSnapshot => expected.ends_with(found),
            };
            if !right {
                faults.push(format!(
                    "{} ({}): committed {expected:?}, in the topic {found:?}",
                    key.0, key.1
                ));
            }
        }
        if faults.is_empty() {
            return Ok(self.totals);
        }
        Err(Error::Different(format!(
            "{} keys have another history in the topics than in the source:\n  {}",
            faults.len(),
            faults[..faults.len().min(8)].join("\n  ")
        )))
    }
}

async fn audited(source: &Postgres) -> Result<Histories> {
    let mut connection = source.connect(DATABASE).await?;
    let rows: Vec<(String, String, String, Option<i64>)> =
        sqlx::query_as("SELECT tbl, key, op::text, rev FROM audit.changes ORDER BY seq")
            .fetch_all(&mut connection)
            .await
            .map_err(Error::sql("reading the audit"))?;
    let mut histories = Histories::new();
    for (table, key, op, rev) in rows {
        histories.entry((table, key)).or_default().push((op, rev));
    }
    Ok(histories)
}

/// The key's columns joined by `|`, as the audit writes them.
fn key_text(columns: &Map<String, Value>) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    columns.values().map(text).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::{Form, Result, Streamed, TopicRecord};

    const CREATE: &str = r#"{"payload":{"op":"c","after":{"rev":5,"id":1}}}"#;
    const UPDATE: &str = r#"{"payload":{"op":"u","after":{"rev":6}}}"#;
    const DELETE: &str = r#"{"payload":{"op":"d","after":null}}"#;
    const READ: &str = r#"{"payload":{"op":"r","after":{"rev":0}}}"#;

    /// Takes in records of one key, `None` being a tombstone.
    fn take(values: &[Option<&str>]) -> Result<Streamed> {
        let mut streamed = Streamed::new(Form::WithSchemas);
        for (offset, value) in (0..).zip(values) {
            let value = value.map(str::as_bytes);
            streamed.take(TopicRecord {
                topic: "shop.shop.orders",
                partition: 0,
                offset,
                key: Some(br#"{"payload":{"id":1,"n":"x"}}"#),
                value,
            })?;
        }
        Ok(streamed)
    }

    #[test]
    fn histories_are_kept_by_key() {
        let streamed =
            take(&[Some(READ), Some(UPDATE), Some(DELETE), None, Some(CREATE)]).expect("a right sequence");
        let history = &streamed.histories[&("orders".to_owned(), "1|x".to_owned())];
        let expected = [
            ("u".to_owned(), Some(6)),
            ("d".to_owned(), None),
            ("c".to_owned(), Some(5)),
        ];
        assert_eq!(history, &expected);
        assert_eq!(streamed.totals.records(), 5);
    }

    #[test]
    fn a_delete_and_its_tombstone_belong_together() {
        assert!(take(&[Some(DELETE), Some(CREATE)]).is_err());
        assert!(take(&[Some(CREATE), None]).is_err());
    }

    #[test]
    fn a_snapshot_row_comes_once_and_first() {
        assert!(take(&[Some(UPDATE), Some(READ)]).is_err());
        assert!(take(&[Some(READ), Some(READ)]).is_err());
        assert!(take(&[Some(r#"{"payload":{"op":"x"}}"#)]).is_err());
    }
}
