//! Batches reduced to the last state of each key leave the same rows as a model that applies every change in turn:
//! random writes, unsent values, narrower schemas, deletions, key changes and truncations, with and without a second
//! unique column, in batches of any cut, each of which may come twice (invariant 5).
#![allow(clippy::unwrap_used)] // a failure here is the test's message

mod sink_support;
mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sink_support::{Message, Sink, Table, UPSERT, frame, int, int32, rows, string, text};
use support::Postgres;
use tidewater_plugin_api::Value;

#[derive(Clone, Debug)]
enum Op {
    Write {
        id: i32,
        a: u8,
        b: Option<u8>,
        u: i32,
    },
    /// `b` was not sent.
    Partial {
        id: i32,
        a: u8,
        u: i32,
    },
    /// A flat record whose schema knows only `id` and `a`.
    Narrow {
        id: i32,
        a: u8,
    },
    Delete {
        id: i32,
    },
    Rekey {
        from: i32,
        to: i32,
    },
    /// Two rows exchange their `u`, by way of none.
    Swap {
        one: i32,
        two: i32,
    },
    Truncate,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    a: String,
    b: Option<String>,
    u: Option<i32>,
    /// A column the records do not know; set to 1 after each batch, so that a row that was made anew shows.
    extra: i32,
}

#[derive(Clone, Debug)]
struct Case {
    unique: bool,
    update_only: bool,
    batch_size: usize,
    batches: Vec<(Vec<Op>, bool)>,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..6;
    let u = 0..8;
    prop_oneof![
        6 => (id.clone(), any::<u8>(), any::<Option<u8>>(), u.clone())
            .prop_map(|(id, a, b, u)| Op::Write { id, a, b, u }),
        3 => (id.clone(), any::<u8>(), u).prop_map(|(id, a, u)| Op::Partial { id, a, u }),
        2 => (id.clone(), any::<u8>()).prop_map(|(id, a)| Op::Narrow { id, a }),
        3 => id.clone().prop_map(|id| Op::Delete { id }),
        2 => (id.clone(), id.clone()).prop_map(|(from, to)| Op::Rekey { from, to }),
        2 => (id.clone(), id).prop_map(|(one, two)| Op::Swap { one, two }),
        1 => Just(Op::Truncate),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let batch = (prop::collection::vec(op(), 1..20), any::<bool>());
    (
        any::<bool>(),
        prop::bool::weighted(0.25),
        1usize..8,
        prop::collection::vec(batch, 1..6),
    )
        .prop_map(|(unique, update_only, batch_size, batches)| Case {
            unique,
            update_only,
            batch_size,
            batches,
        })
}

struct Model {
    rows: BTreeMap<i32, Row>,
    unique: bool,
    update_only: bool,
    wide: Table,
    narrow: Table,
}

impl Model {
    fn taken(&self, id: i32, u: Option<i32>) -> bool {
        self.unique && u.is_some() && self.rows.iter().any(|(&other, row)| other != id && row.u == u)
    }

    /// Applies a change and gives its messages; none for one that the database it came from would have refused.
    fn apply(&mut self, op: &Op) -> Vec<Message> {
        let name = |number: u8| format!("{number}");
        let opt = |value: &Option<String>| value.as_deref().map_or(Value::Null, text);
        match *op {
            Op::Write { id, a, b, u } => {
                if self.taken(id, Some(u)) {
                    return Vec::new();
                }
                let (a, b) = (name(a), b.map(name));
                let message = self.wide.write("u", vec![int(id), text(&a), opt(&b), int(u)]);
                self.put(id, |row| {
                    row.a = a;
                    row.b = b;
                    row.u = Some(u);
                });
                vec![message]
            }
            Op::Partial { id, a, u } => {
                if self.taken(id, Some(u)) {
                    return Vec::new();
                }
                let a = name(a);
                let unsent = text("__debezium_unavailable_value");
                let message = self.wide.write("u", vec![int(id), text(&a), unsent, int(u)]);
                self.put(id, |row| {
                    row.a = a;
                    row.u = Some(u);
                });
                vec![message]
            }
            Op::Narrow { id, a } => {
                let a = name(a);
                let message = self.narrow.flat(vec![int(id), text(&a)]);
                self.put(id, |row| row.a = a);
                vec![message]
            }
            Op::Delete { id } => {
                self.rows.remove(&id);
                vec![self.wide.delete(&int(id)), self.wide.tombstone(&int(id))]
            }
            Op::Rekey { from, to } => {
                // Only what is there changes its key, and only to one that is free.
                let Some(row) = self.rows.get(&from).cloned() else {
                    return Vec::new();
                };
                if self.rows.contains_key(&to) || row.u.is_none() {
                    return Vec::new();
                }
                self.rows.remove(&from);
                let message = self.wide.write(
                    "c",
                    vec![int(to), text(&row.a), opt(&row.b), row.u.map_or(Value::Null, int)],
                );
                self.put(to, |new| *new = Row { extra: 0, ..row });
                vec![
                    self.wide.delete(&int(from)),
                    message,
                    self.wide.tombstone(&int(from)),
                ]
            }
            Op::Swap { one, two } => {
                let (Some(first), Some(second)) =
                    (self.rows.get(&one).cloned(), self.rows.get(&two).cloned())
                else {
                    return Vec::new();
                };
                if one == two {
                    return Vec::new();
                }
                let write = |id: i32, row: &Row, u: Option<i32>| {
                    let u = u.map_or(Value::Null, int);
                    self.wide.write("u", vec![int(id), text(&row.a), opt(&row.b), u])
                };
                let messages = vec![
                    write(one, &first, None),
                    write(two, &second, first.u),
                    write(one, &first, second.u),
                ];
                self.put(one, |row| row.u = second.u);
                self.put(two, |row| row.u = first.u);
                messages
            }
            Op::Truncate => {
                self.rows.clear();
                vec![self.wide.truncate()]
            }
        }
    }

    fn put(&mut self, id: i32, change: impl FnOnce(&mut Row)) {
        if self.update_only {
            if let Some(row) = self.rows.get_mut(&id) {
                change(row);
            }
            return;
        }
        change(self.rows.entry(id).or_insert(Row {
            a: String::new(),
            b: None,
            u: None,
            extra: 0,
        }));
    }
}

async fn run(postgres: &Postgres, database: &str, number: usize, case: Case) -> Result<bool, TestCaseError> {
    let topic = format!("t{number}");
    let unique = if case.unique { "UNIQUE" } else { "" };
    postgres
        .execute(
            database,
            &format!("CREATE TABLE {topic} (id int PRIMARY KEY, a text NOT NULL, b text, u int {unique}, extra int DEFAULT 0)"),
        )
        .await;
    let wide = Table::new(
        &topic,
        &[
            ("id", int32()),
            ("a", string()),
            ("b", string().optional()),
            ("u", int32().optional()),
        ],
    );
    let narrow = Table::new(&topic, &[("id", int32()), ("a", string())]);
    let batch_size = case.batch_size.to_string();
    let mut settings = UPSERT.to_vec();
    settings.push(("batch.size", &batch_size));
    if case.update_only {
        settings[0].1 = "update";
    }
    let mut sink = Sink::start(postgres, database, &settings, &[&topic]).await;
    let mut model = Model {
        rows: BTreeMap::new(),
        unique: case.unique,
        update_only: case.update_only,
        wide,
        narrow,
    };
    if case.update_only {
        // There must be something to change.
        for id in 0..6 {
            let row = Row {
                a: "first".into(),
                b: Some("first".into()),
                u: Some(100 + id),
                extra: 0,
            };
            postgres
                .execute(
                    database,
                    &format!(
                        "INSERT INTO {topic} VALUES ({id}, 'first', 'first', {})",
                        100 + id
                    ),
                )
                .await;
            model.rows.insert(id, row);
        }
    }
    for (ops, again) in &case.batches {
        let messages: Vec<_> = ops.iter().flat_map(|op| model.apply(op)).collect();
        if messages.is_empty() {
            continue;
        }
        let batch = frame(&sink.number(&messages));
        for _ in 0..=usize::from(*again) {
            sink.task
                .put(&batch)
                .await
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        let expected: Vec<_> = model
            .rows
            .iter()
            .map(|(id, row)| {
                let b = row.b.clone().unwrap_or("-".into());
                let u = row.u.map_or("-".into(), |u| u.to_string());
                format!("{id}|{}|{b}|{u}|{}", row.a, row.extra)
            })
            .collect();
        let found = rows(
            postgres,
            database,
            &format!("SELECT id, a, b, u, extra FROM {topic} ORDER BY id"),
        )
        .await;
        prop_assert_eq!(found, expected);
        postgres
            .execute(database, &format!("UPDATE {topic} SET extra = 1"))
            .await;
        for row in model.rows.values_mut() {
            row.extra = 1;
        }
    }
    let one_by_one = sink.metric("batches-one-by-one") > 0;
    sink.task.stop().await.unwrap();
    Ok(one_by_one)
}

#[test]
fn a_batch_leaves_what_its_changes_in_turn_would_leave() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let postgres = Postgres::start();
    let database = runtime.block_on(postgres.database());
    let number = std::cell::Cell::new(0);
    let one_by_one = std::cell::Cell::new(0);
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&case(), |case| {
            number.set(number.get() + 1);
            let took_turns = runtime.block_on(run(&postgres, &database, number.get(), case))?;
            one_by_one.set(one_by_one.get() + u32::from(took_turns));
            Ok(())
        })
        .unwrap();
    assert!(
        one_by_one.get() > 0,
        "no case met a unique value that moved within a batch"
    );
}
