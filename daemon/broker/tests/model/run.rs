//! Doing the same to a broker and to the model.

use tidewater_broker::{
    Appended, BatchBuilder, Broker, BrokerOptions, Compression, Error, Isolation, Producer, Reader, Result,
    Sequence, TopicConfig, Transaction,
};

use crate::support::Random;
use crate::vector::{Model, Sent};
use crate::{LATEST, PARTITIONS, PRODUCERS, SEGMENT_BYTES, Step};

/// Of a producer's batches these many are known again: Kafka's number.
const KNOWN: usize = 5;

struct OpenTransaction {
    producer: u32,
    handle: Transaction,
    number: usize,
    partitions: Vec<u32>,
    offset: Option<u64>,
}

pub struct Run {
    options: BrokerOptions,
    broker: Broker,
    producers: Vec<Option<Producer>>,
    open: Vec<Option<OpenTransaction>>,
    /// By partition.
    readers: Vec<Reader>,
    model: Model,
    numbered_id: i64,
    written: u64,
}

fn batch(records: &[(String, i64)], compression: Compression) -> BatchBuilder {
    let mut batch = BatchBuilder::new(compression);
    for (value, timestamp) in records {
        batch.push(*timestamp, None, Some(value.as_bytes()), &[]);
    }
    batch
}

fn rows(reader: &mut Reader, max_bytes: usize) -> Option<Vec<(u64, String, i64)>> {
    let fetched = reader.try_next(max_bytes).unwrap()?;
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    let rows: Vec<_> = fetched
        .records()
        .map(|r| (r.offset, text(r.value), r.timestamp))
        .collect();
    assert!(rows.len() == fetched.len() && !rows.is_empty());
    Some(rows)
}

impl Run {
    pub async fn new(options: BrokerOptions) -> Self {
        let broker = Broker::open(options.clone()).unwrap();
        // The records have timestamps of long ago.
        let config = TopicConfig {
            settings: [("retention.ms".to_owned(), "-1".to_owned())].into(),
            ..TopicConfig::new(PARTITIONS)
        };
        broker.create_topic("t", config).await.unwrap();
        let numbered_id = broker.idempotent_producer().await.unwrap().id();
        let mut run = Self {
            options,
            broker,
            producers: (0..PRODUCERS).map(|_| None).collect(),
            open: (0..PRODUCERS).map(|_| None).collect(),
            readers: Vec::new(),
            model: Model::new(PARTITIONS as usize),
            numbered_id,
            written: 0,
        };
        run.readers = (0..PARTITIONS)
            .map(|partition| run.reader(partition, 0))
            .collect();
        run
    }

    /// A reader from an offset, or from where the log begins by now.
    fn reader(&self, partition: u32, from: u64) -> Reader {
        let from = from.max(self.model.starts[partition as usize]);
        self.broker
            .reader("t", partition, from, Isolation::ReadCommitted)
            .unwrap()
    }

    /// Records no two of which have the same value, at times in any order.
    fn records(&mut self, count: usize, size: usize) -> Vec<(String, i64)> {
        let record = |_| {
            self.written += 1;
            let timestamp = Random::new(self.written).below(LATEST as u64) as i64;
            (format!("{}-{}", self.written, "x".repeat(size)), timestamp)
        };
        (0..count).map(record).collect()
    }

    pub async fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                partition,
                records,
                size,
                lz4,
            } => {
                let records = self.records(records, size);
                let batch = batch(&records, if lz4 { Compression::Lz4 } else { Compression::None });
                let base = self.broker.append("t", partition, batch).await.unwrap();
                assert_eq!(base, self.model.end(partition));
                self.model.push(partition, records, None);
            }
            Step::Numbered {
                partition,
                records,
                size,
            } => {
                let records = self.records(records, size);
                let sequence = self.model.next_sequence(partition);
                let base = self.model.end(partition);
                let sent = self.send(partition, sequence, &records).await.unwrap();
                assert_eq!((sent.base_offset, sent.duplicate), (base, false));
                self.model.push(partition, records.clone(), None);
                self.model.numbered[partition as usize].push(Sent {
                    sequence,
                    base,
                    records,
                });
            }
            Step::Again { partition, back } => self.send_again(partition, back).await,
            Step::Gap { partition, by } => {
                let sequence = self.model.next_sequence(partition) + by;
                let records = self.records(1, 10);
                let sent = self.send(partition, sequence, &records).await;
                // A producer that is not known begins where it likes, as in Kafka.
                if self.model.numbered[partition as usize].is_empty() {
                    let base = self.model.end(partition);
                    assert_eq!(sent.unwrap().base_offset, base);
                    self.model.push(partition, records.clone(), None);
                    let first = Sent {
                        sequence,
                        base,
                        records,
                    };
                    self.model.numbered[partition as usize].push(first);
                } else {
                    assert!(matches!(sent, Err(Error::OutOfOrderSequence { .. })), "{sent:?}");
                }
            }
            Step::Write {
                producer,
                partition,
                records,
                size,
            } => {
                let records = self.records(records, size);
                self.ensure_open(producer).await;
                let open = self.open[producer].as_mut().unwrap();
                let batch = batch(&records, Compression::None);
                open.handle.append("t", partition, batch).await.unwrap();
                if !open.partitions.contains(&partition) {
                    open.partitions.push(partition);
                }
                let transaction = Some(open.number);
                self.model.push(partition, records, transaction);
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
                    self.end(&open, true);
                    let committed = open.handle.commit().await.unwrap();
                    let partitions: Vec<_> = committed.partitions.iter().map(|p| p.partition).collect();
                    assert_eq!(partitions, open.partitions);
                }
            }
            Step::Abort(producer) => {
                if let Some(open) = self.open[producer].take() {
                    self.end(&open, false);
                    open.handle.abort().await.unwrap();
                }
            }
            Step::TakeOver(producer) => {
                let next = self.broker.producer(&format!("p{producer}")).await.unwrap();
                self.producers[producer] = Some(next);
                if let Some(mut open) = self.open[producer].take() {
                    self.end(&open, false);
                    let late = batch(&[("x".to_owned(), 1)], Compression::None);
                    assert!(open.handle.append("t", 0, late).await.is_err());
                }
            }
            Step::Reopen { clean } => self.reopen(clean).await,
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
            step => self.look(&step).await,
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

    /// The steps that change nothing.
    async fn look(&mut self, step: &Step) {
        match *step {
            Step::ReadFrom {
                partition,
                part,
                max_bytes,
            } => {
                let from = self.place(partition, part);
                let mut reader = self.reader(partition, from);
                self.follow(&mut reader, partition, usize::MAX, max_bytes);
            }
            Step::Seek { partition, part } => {
                let to = self.place(partition, part);
                let reader = &mut self.readers[partition as usize];
                let high = self.broker.offsets("t", partition).unwrap().high_watermark;
                let before = reader.position();
                let beyond = reader.seek(high + 1);
                assert!(
                    matches!(beyond, Err(Error::OffsetOutOfRange { .. })),
                    "{beyond:?}"
                );
                assert_eq!(reader.position(), before);
                reader.seek(to).unwrap();
            }
            Step::Follow {
                partition,
                reads,
                max_bytes,
            } => {
                let new = self.reader(partition, 0);
                let mut reader = std::mem::replace(&mut self.readers[partition as usize], new);
                self.follow(&mut reader, partition, reads, max_bytes);
                self.readers[partition as usize] = reader;
            }
            Step::Find { partition, timestamp } => {
                let high = self.broker.offsets("t", partition).unwrap().high_watermark;
                let found = self.broker.offset_for_time("t", partition, timestamp).await;
                let all = self.model.visible(partition, Isolation::ReadUncommitted);
                let first = all.iter().find(|row| row.2 >= timestamp).map(|row| row.0);
                assert_eq!(
                    found.unwrap(),
                    first.filter(|first| *first < high),
                    "from {timestamp}"
                );
            }
            _ => {}
        }
    }

    /// An offset so far into what is stable.
    fn place(&self, partition: u32, part: u8) -> u64 {
        let end = self.broker.offsets("t", partition).unwrap().last_stable;
        let start = self.model.starts[partition as usize];
        start + end.saturating_sub(start) * u64::from(part) / 255
    }

    /// Reads on, and holds it against the model: nothing is left out.
    fn follow(&self, reader: &mut Reader, partition: u32, reads: usize, max_bytes: usize) {
        // What it had not read is gone: it is told, and goes on where the log begins.
        let start = self.model.starts[partition as usize];
        if reader.position() < start {
            let gone = reader.try_next(max_bytes);
            assert!(matches!(gone, Err(Error::OffsetOutOfRange { .. })), "{gone:?}");
            reader.seek(start).unwrap();
        }
        let from = reader.position();
        let mut got = Vec::new();
        let mut ended = false;
        for _ in 0..reads {
            let Some(more) = rows(reader, max_bytes) else {
                ended = true;
                break;
            };
            got.extend(more);
        }
        let mut due = self.model.visible(partition, Isolation::ReadCommitted);
        due.retain(|row| row.0 >= from && row.0 < reader.position());
        assert_eq!(got, due, "from {from} to {}", reader.position());
        if ended {
            assert_eq!(reader.lag(), 0);
        }
    }

    async fn send(&self, partition: u32, sequence: i32, records: &[(String, i64)]) -> Result<Appended> {
        let sequence = Sequence {
            producer_id: self.numbered_id,
            epoch: 0,
            base_sequence: sequence,
        };
        let batch = batch(records, Compression::Zstd);
        self.broker
            .append_with_sequence("t", partition, batch, sequence)
            .await
    }

    async fn send_again(&self, partition: u32, back: usize) {
        let sent = &self.model.numbered[partition as usize];
        let Some(old) = sent.len().checked_sub(back + 1).map(|at| &sent[at]) else {
            return;
        };
        let again = self.send(partition, old.sequence, &old.records).await;
        if back < KNOWN {
            let again = again.unwrap();
            assert_eq!((again.base_offset, again.duplicate), (old.base, true));
        } else {
            assert!(
                matches!(again, Err(Error::DuplicateSequence { .. })),
                "{back} back: {again:?}"
            );
        }
    }

    fn end(&mut self, open: &OpenTransaction, commit: bool) {
        self.model.outcomes[open.number] = Some(commit);
        for partition in &open.partitions {
            self.model.partitions[*partition as usize].push(crate::vector::Entry::Marker);
        }
        if let (true, Some(next)) = (commit, open.offset) {
            let place = ("source".to_owned(), open.producer);
            self.model.offsets.insert(place, next);
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

    /// Ends the broker, cleanly or not, and opens it again; readers go on where they were.
    pub async fn reopen(&mut self, clean: bool) {
        if clean {
            // Open transactions are aborted by closing, in the order of the producers' map: at most one here.
            for producer in 1..PRODUCERS {
                Box::pin(self.step(Step::Abort(producer))).await;
            }
            self.broker.close().await.unwrap();
            if let Some(open) = self.open[0].take() {
                self.end(&open, false);
            }
        } else {
            for producer in 0..PRODUCERS {
                if let Some(open) = self.open[producer].take() {
                    self.end(&open, false);
                }
            }
        }
        self.producers = (0..PRODUCERS).map(|_| None).collect();
        let positions: Vec<_> = self.readers.drain(..).map(|reader| reader.position()).collect();
        let elsewhere = tempfile::tempdir().unwrap();
        let empty = Broker::open(BrokerOptions::new(elsewhere.path())).unwrap();
        drop(std::mem::replace(&mut self.broker, empty));
        self.broker = Broker::open(self.options.clone()).unwrap();
        assert!(self.broker.recovery().is_clean(), "{:?}", self.broker.recovery());
        if clean {
            assert_eq!(self.broker.recovery().scanned_bytes, 0);
        }
        self.readers = (0..)
            .zip(positions)
            .map(|(partition, position)| self.reader(partition, position))
            .collect();
        self.check();
    }

    pub fn check(&self) {
        for partition in 0..PARTITIONS {
            let read = |isolation| {
                let start = tidewater_broker::Start::Earliest;
                let mut reader = self.broker.reader("t", partition, start, isolation).unwrap();
                let mut all = Vec::new();
                while let Some(more) = rows(&mut reader, 1 << 20) {
                    all.extend(more);
                }
                all
            };
            let committed = self.model.visible(partition, Isolation::ReadCommitted);
            assert_eq!(read(Isolation::ReadCommitted), committed);
            let offsets = self.broker.offsets("t", partition).unwrap();
            assert_eq!(offsets.end, self.model.end(partition));
            assert_eq!(offsets.log_start, self.model.starts[partition as usize]);
            assert!(offsets.last_stable <= offsets.high_watermark && offsets.high_watermark <= offsets.end);
            let all = read(Isolation::ReadUncommitted);
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
