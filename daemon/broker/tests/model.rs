//! The broker against a model: vectors, which cannot get it wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::{options, read};
use tidewater_broker::{
    BatchBuilder, Broker, BrokerOptions, Compression, Durability, Error, Isolation, Producer, TopicConfig,
    Transaction,
};

const PARTITIONS: u32 = 3;
const PRODUCERS: usize = 2;
const SEGMENT_BYTES: u64 = 900;

#[derive(Debug, Clone)]
enum Step {
    Append {
        partition: u32,
        records: usize,
        size: usize,
        lz4: bool,
    },
    /// Begins a transaction where none is open.
    Write {
        producer: usize,
        partition: u32,
        records: usize,
        size: usize,
    },
    Offset {
        producer: usize,
        next: u64,
    },
    Commit(usize),
    Abort(usize),
    /// A new instance of the producer takes over.
    TakeOver(usize),
    Reopen {
        clean: bool,
    },
    /// Deletes the records before a part of what is acknowledged.
    Delete {
        partition: u32,
        part: u8,
    },
    /// Retention by size, once.
    Retain {
        bytes: u64,
    },
    ReadFrom {
        partition: u32,
        part: u8,
        max_bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (partition, producer) = (0..PARTITIONS, 0..PRODUCERS);
    let (records, size) = (1..5_usize, 0..120_usize);
    prop_oneof![
        4 => (partition.clone(), records.clone(), size.clone(), any::<bool>())
            .prop_map(|(partition, records, size, lz4)| Step::Append { partition, records, size, lz4 }),
        8 => (producer.clone(), partition.clone(), records, size).prop_map(|(producer, partition, records, size)| {
            Step::Write { producer, partition, records, size }
        }),
        2 => (producer.clone(), 0..1000_u64).prop_map(|(producer, next)| Step::Offset { producer, next }),
        3 => producer.clone().prop_map(Step::Commit),
        1 => producer.clone().prop_map(Step::Abort),
        1 => producer.prop_map(Step::TakeOver),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        1 => (partition.clone(), any::<u8>()).prop_map(|(partition, part)| Step::Delete { partition, part }),
        1 => (0..4000_u64).prop_map(|bytes| Step::Retain { bytes }),
        2 => (partition, any::<u8>(), 1..3000_usize)
            .prop_map(|(partition, part, max_bytes)| Step::ReadFrom { partition, part, max_bytes }),
    ]
}

/// A record of a partition, or a marker.
#[derive(Debug, Clone)]
enum Entry {
    Record {
        value: String,
        transaction: Option<usize>,
    },
    Marker,
}

#[derive(Default)]
struct Model {
    partitions: Vec<Vec<Entry>>,
    /// Where each partition begins.
    starts: Vec<u64>,
    /// Of each transaction, whether it is committed; `None` while it is open.
    outcomes: Vec<Option<bool>>,
    offsets: BTreeMap<(String, u32), u64>,
}

struct OpenTransaction {
    producer: u32,
    handle: Transaction,
    number: usize,
    partitions: Vec<u32>,
    offset: Option<u64>,
}

impl Model {
    fn end(&mut self, open: &OpenTransaction, commit: bool) {
        self.outcomes[open.number] = Some(commit);
        for partition in &open.partitions {
            self.partitions[*partition as usize].push(Entry::Marker);
        }
        if let (true, Some(next)) = (commit, open.offset) {
            self.offsets.insert(("source".to_owned(), open.producer), next);
        }
    }

    fn visible(&self, partition: u32, isolation: Isolation) -> Vec<(u64, String)> {
        let mut visible = Vec::new();
        let start = self.starts[partition as usize];
        for (offset, entry) in self.partitions[partition as usize].iter().enumerate() {
            let Entry::Record { value, transaction } = entry else {
                continue;
            };
            match transaction.map(|number| self.outcomes[number]) {
                Some(None) if isolation == Isolation::ReadCommitted => break,
                Some(Some(false)) if isolation == Isolation::ReadCommitted => continue,
                // Committed, outside transactions, or read without regard to them.
                _ => {}
            }
            if offset as u64 >= start {
                visible.push((offset as u64, value.clone()));
            }
        }
        visible
    }
}

struct Run {
    broker: Broker,
    producers: Vec<Option<Producer>>,
    open: Vec<Option<OpenTransaction>>,
    model: Model,
    written: usize,
}

impl Run {
    fn values(&mut self, records: usize, size: usize) -> Vec<String> {
        let first = self.written;
        self.written += records;
        (first..self.written)
            .map(|n| format!("{n}-{}", "x".repeat(size)))
            .collect()
    }

    async fn step(&mut self, step: Step, options: &BrokerOptions) {
        match step {
            Step::Append {
                partition,
                records,
                size,
                lz4,
            } => {
                let values = self.values(records, size);
                let batch = batch(&values, if lz4 { Compression::Lz4 } else { Compression::None });
                let base = self.broker.append("t", partition, batch).await.unwrap();
                let entries = &mut self.model.partitions[partition as usize];
                assert_eq!(base, entries.len() as u64);
                entries.extend(values.into_iter().map(|value| Entry::Record {
                    value,
                    transaction: None,
                }));
            }
            Step::Write {
                producer,
                partition,
                records,
                size,
            } => {
                let values = self.values(records, size);
                self.ensure_open(producer).await;
                let open = self.open[producer].as_mut().unwrap();
                open.handle
                    .append("t", partition, batch(&values, Compression::None))
                    .await
                    .unwrap();
                if !open.partitions.contains(&partition) {
                    open.partitions.push(partition);
                }
                let transaction = Some(open.number);
                let entries = values
                    .into_iter()
                    .map(|value| Entry::Record { value, transaction });
                self.model.partitions[partition as usize].extend(entries);
            }
            Step::Offset { producer, next } => {
                self.ensure_open(producer).await;
                let open = self.open[producer].as_mut().unwrap();
                open.handle
                    .commit_group_offsets("g", &[("source", producer as u32, next)])
                    .await
                    .unwrap();
                open.offset = Some(next);
            }
            Step::Commit(producer) => {
                if let Some(open) = self.open[producer].take() {
                    self.model.end(&open, true);
                    let committed = open.handle.commit().await.unwrap();
                    let partitions: Vec<_> = committed.partitions.iter().map(|p| p.partition).collect();
                    assert_eq!(partitions, open.partitions);
                }
            }
            Step::Abort(producer) => {
                if let Some(open) = self.open[producer].take() {
                    self.model.end(&open, false);
                    open.handle.abort().await.unwrap();
                }
            }
            Step::TakeOver(producer) => {
                let next = self.broker.producer(&format!("p{producer}")).await.unwrap();
                self.producers[producer] = Some(next);
                if let Some(mut open) = self.open[producer].take() {
                    self.model.end(&open, false);
                    assert!(
                        open.handle
                            .append("t", 0, batch(&["x".to_owned()], Compression::None))
                            .await
                            .is_err()
                    );
                }
            }
            Step::Reopen { clean } => self.reopen(clean, options).await,
            Step::Delete { partition, part } => {
                let high = self.broker.offsets("t", partition).unwrap().high_watermark;
                let before = high * u64::from(part) / 255;
                let start = &mut self.model.starts[partition as usize];
                *start = before.max(*start);
                let deleted = self.broker.delete_records("t", partition, before).await;
                assert_eq!(deleted.unwrap(), *start);
                let beyond = self.broker.delete_records("t", partition, high + 1).await;
                assert!(
                    matches!(beyond, Err(Error::OffsetOutOfRange { .. })),
                    "{beyond:?}"
                );
            }
            Step::Retain { bytes } => self.retain(bytes).await,
            Step::ReadFrom {
                partition,
                part,
                max_bytes,
            } => {
                let visible = self.model.visible(partition, Isolation::ReadCommitted);
                let end = self.broker.offsets("t", partition).unwrap().last_stable;
                let start = self.model.starts[partition as usize];
                let from = start + (end - start) * u64::from(part) / 256;
                let mut reader = self
                    .broker
                    .reader("t", partition, from, Isolation::ReadCommitted)
                    .unwrap();
                let mut got = Vec::new();
                while let Some(fetched) = reader.try_next(max_bytes).unwrap() {
                    got.extend(fetched.records().map(|r| r.offset));
                }
                let expected: Vec<_> = visible
                    .into_iter()
                    .map(|(o, _)| o)
                    .filter(|o| *o >= from)
                    .collect();
                assert_eq!(got, expected);
            }
        }
    }

    /// What goes is whole segments, as many as can: the log is not smaller than it is to be, and not larger by a
    /// segment, unless an open transaction holds it.
    async fn retain(&mut self, bytes: u64) {
        let set = |value: Option<String>| {
            let broker = self.broker.clone();
            async move {
                let changes = [("retention.bytes", value.as_deref())];
                broker.alter_topic("t", &changes).await.unwrap();
            }
        };
        let size = |partition: u32| {
            let all = self.broker.metrics().partitions;
            let found = all.iter().find(|p| &*p.topic == "t" && p.partition == partition);
            found.unwrap().size_bytes
        };
        let before: Vec<_> = (0..PARTITIONS).map(size).collect();
        set(Some(bytes.to_string())).await;
        self.broker.run_housekeeping_now();
        set(None).await;
        self.broker.run_housekeeping_now();
        for partition in 0..PARTITIONS {
            let offsets = self.broker.offsets("t", partition).unwrap();
            let start = &mut self.model.starts[partition as usize];
            assert!((*start..=offsets.high_watermark).contains(&offsets.log_start));
            assert!(offsets.log_start == *start || offsets.log_start <= offsets.last_stable);
            *start = offsets.log_start;
            let (now, before) = (size(partition), before[partition as usize]);
            assert!(now >= before.min(bytes), "{now} of {before}, to be {bytes}");
            if offsets.last_stable == offsets.end {
                assert!(now < bytes + 2 * SEGMENT_BYTES, "{now}, to be {bytes}");
            }
        }
    }

    async fn ensure_open(&mut self, producer: usize) {
        if self.producers[producer].is_none() {
            self.producers[producer] = Some(self.broker.producer(&format!("p{producer}")).await.unwrap());
        }
        if self.open[producer].is_none() {
            let handle = self.producers[producer].as_ref().unwrap().begin().unwrap();
            let number = self.model.outcomes.len();
            self.model.outcomes.push(None);
            let open = OpenTransaction {
                producer: producer as u32,
                handle,
                number,
                partitions: Vec::new(),
                offset: None,
            };
            self.open[producer] = Some(open);
        }
    }

    async fn reopen(&mut self, clean: bool, options: &BrokerOptions) {
        if clean {
            // Open transactions are aborted by closing, in the order of the producers' map: at most one here.
            for producer in 1..PRODUCERS {
                Box::pin(self.step(Step::Abort(producer), options)).await;
            }
            self.broker.close().await.unwrap();
            if let Some(open) = self.open[0].take() {
                self.model.end(&open, false);
            }
        } else {
            for open in &mut self.open {
                if let Some(open) = open.take() {
                    self.model.end(&open, false);
                }
            }
        }
        self.producers = (0..PRODUCERS).map(|_| None).collect();
        let elsewhere = tempfile::tempdir().unwrap();
        let empty = Broker::open(BrokerOptions::new(elsewhere.path())).unwrap();
        drop(std::mem::replace(&mut self.broker, empty));
        self.broker = Broker::open(options.clone()).unwrap();
        assert!(self.broker.recovery().is_clean(), "{:?}", self.broker.recovery());
        if clean {
            assert_eq!(self.broker.recovery().scanned_bytes, 0);
        }
        self.check();
    }

    fn check(&self) {
        for partition in 0..PARTITIONS {
            let committed = read(&self.broker, "t", partition, Isolation::ReadCommitted);
            assert_eq!(committed, self.model.visible(partition, Isolation::ReadCommitted));
            let offsets = self.broker.offsets("t", partition).unwrap();
            assert_eq!(
                offsets.end,
                self.model.partitions[partition as usize].len() as u64
            );
            assert!(offsets.last_stable <= offsets.high_watermark && offsets.high_watermark <= offsets.end);
            assert_eq!(offsets.log_start, self.model.starts[partition as usize]);
            let all = read(&self.broker, "t", partition, Isolation::ReadUncommitted);
            let model = self.model.visible(partition, Isolation::ReadUncommitted);
            assert_eq!(
                all,
                model[..all.len()],
                "what shows is a beginning of what was written"
            );
        }
        assert_eq!(self.broker.group_offsets("g"), self.model.offsets);
    }
}

fn batch(values: &[String], compression: Compression) -> BatchBuilder {
    let mut batch = BatchBuilder::new(compression);
    for value in values {
        batch.push(1, None, Some(value.as_bytes()), &[]);
    }
    batch
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        segment_bytes: SEGMENT_BYTES,
        index_interval_bytes: 150,
        checkpoint_bytes: 700,
        durability: Durability::Os,
        ..options(&dir)
    };
    let broker = Broker::open(options.clone()).unwrap();
    // The records have timestamps of long ago.
    let config = TopicConfig {
        settings: [("retention.ms".to_owned(), "-1".to_owned())].into(),
        ..TopicConfig::new(PARTITIONS)
    };
    broker.create_topic("t", config).await.unwrap();
    let none = || (0..PRODUCERS).map(|_| None).collect();
    let model = Model {
        partitions: vec![Vec::new(); PARTITIONS as usize],
        starts: vec![0; PARTITIONS as usize],
        ..Model::default()
    };
    let open = (0..PRODUCERS).map(|_| None).collect();
    let mut run = Run {
        broker,
        producers: none(),
        open,
        model,
        written: 0,
    };
    for step in steps {
        run.step(step, &options).await;
    }
    run.check();
    run.reopen(true, &options).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}
