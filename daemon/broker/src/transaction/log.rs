//! The transaction log: who the producers are, and which transactions committed. See [`commit`](crate::transaction::commit) for
//! what its commit records mean.
//!
//! It is a log like those of partitions, of [`TransactionRecord`]s, in the directory `transactions`. It stays small:
//! every few megabytes what still holds is written again as one batch, and the segments before are removed. A commit
//! record holds until the markers of its transaction are durable, because until then they are made from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::batch::builder::BatchBuilder;
use crate::batch::compression::Compression;
use crate::error::{Error, Result};
use crate::log::flusher::{Completion, Flusher};
use crate::log::recovery::Recovered;
use crate::log::{Log, LogId};
use crate::options::BrokerOptions;
use crate::reader::{Isolation, Reader, Start};
use crate::topic_settings::TopicSettings;
use crate::transaction::record::{ListedPartition, TransactionKey, TransactionRecord};

/// The name this log has in reports and errors.
pub(crate) const TRANSACTION_LOG: &str = "__transaction_state";

/// Bytes after which what still holds is written again.
const SNAPSHOT_BYTES: u64 = 4 << 20;
/// Producer ids reserved at a time, as in Kafka.
const ID_BLOCK: i64 = 1000;
/// How many finished commits may wait for their markers to be durable before those are synced for it.
const LAZY_MARKERS: usize = 256;

pub(crate) struct TransactionLog {
    pub(crate) log: Arc<Log>,
    state: Mutex<State>,
    /// Held while producer ids are reserved.
    allocating: tokio::sync::Mutex<()>,
    snapshot_bytes: u64,
}

struct State {
    producers: BTreeMap<String, ProducerId>,
    next_producer_id: i64,
    /// Ids below are durably gone: they may be used.
    reserved_ids: i64,
    /// Ids below are gone once the record that says so is durable.
    promised_ids: i64,
    /// The commit records that still hold.
    commits: BTreeMap<TransactionKey, HeldCommit>,
    since_snapshot: u64,
    prune_at: usize,
}

/// The instance of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerId {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

struct HeldCommit {
    record: Vec<u8>,
    /// `None` while the commit is under way.
    markers: Option<Vec<WrittenMarker>>,
}

/// A marker that may not be durable yet.
pub(crate) struct WrittenMarker {
    pub(crate) log: Arc<Log>,
    /// The first offset of the transaction.
    pub(crate) first: u64,
    /// The offset after the marker, `None` if it is still to be written.
    pub(crate) next: Option<u64>,
}

/// What the log said when it was opened.
pub(crate) struct Replayed {
    pub(crate) producers: BTreeMap<String, ProducerId>,
    pub(crate) commits: BTreeMap<TransactionKey, Vec<ListedPartition>>,
    next_producer_id: i64,
}

impl TransactionLog {
    pub(crate) fn open(
        options: &BrokerOptions,
        flusher: &Arc<Flusher>,
    ) -> Result<(Self, Recovered, Replayed)> {
        let snapshot_bytes = options.segment_bytes.min(SNAPSHOT_BYTES);
        let settings = Arc::new(TopicSettings::of_transaction_log(options, snapshot_bytes)?);
        let id = LogId {
            topic: TRANSACTION_LOG.into(),
            topic_id: Uuid::nil(),
            partition: 0,
        };
        let (log, recovered) = Log::open(options.data_dir.join("transactions"), id, settings, flusher)?;
        let replayed = replay(&log)?;
        let state = State {
            producers: replayed.producers.clone(),
            next_producer_id: replayed.next_producer_id,
            reserved_ids: 0,
            promised_ids: 0,
            commits: BTreeMap::new(),
            since_snapshot: 0,
            prune_at: LAZY_MARKERS,
        };
        Ok((
            Self {
                log,
                state: Mutex::new(state),
                allocating: tokio::sync::Mutex::default(),
                snapshot_bytes,
            },
            recovered,
            replayed,
        ))
    }

    /// The instance after `current`: the next epoch, or a new id where there is none.
    pub(crate) fn next_instance(&self, current: Option<ProducerId>) -> ProducerId {
        match current {
            Some(ProducerId { id, epoch }) if epoch < i16::MAX - 1 => ProducerId { id, epoch: epoch + 1 },
            _ => {
                let mut state = self.state.lock();
                let id = state.next_producer_id;
                state.next_producer_id += 1;
                ProducerId { id, epoch: 0 }
            }
        }
    }

    /// A producer id nobody had, and nobody will have after a crash either: ids are taken from blocks, and a block is
    /// durably gone before its first id is used.
    pub(crate) async fn allocate_producer_id(&self) -> Result<i64> {
        let _turn = self.allocating.lock().await;
        loop {
            let (until, record_end) = {
                let mut state = self.state.lock();
                if state.next_producer_id < state.reserved_ids {
                    let id = state.next_producer_id;
                    state.next_producer_id += 1;
                    return Ok(id);
                }
                let next_producer_id = state.next_producer_id + ID_BLOCK;
                let record = TransactionRecord::Ids { next_producer_id };
                let record_end = self.append(&mut state, &[record.encode()])?;
                state.promised_ids = next_producer_id;
                self.snapshot_if_due(&mut state);
                (next_producer_id, record_end)
            };
            self.log.synced(record_end).await?;
            self.state.lock().reserved_ids = until;
        }
    }

    /// Writes who the live instance of a producer is; answers the offset that must be durable.
    pub(crate) fn append_producer(&self, transactional_id: &str, who: ProducerId) -> Result<u64> {
        let record = TransactionRecord::Producer {
            transactional_id: transactional_id.to_owned(),
            producer_id: who.id,
            epoch: who.epoch,
        };
        let mut state = self.state.lock();
        let next = self.append(&mut state, &[record.encode()])?;
        state.producers.insert(transactional_id.to_owned(), who);
        self.snapshot_if_due(&mut state);
        Ok(next)
    }

    /// Writes that a transactional id is forgotten.
    pub(crate) fn append_forget(&self, transactional_id: &str) -> Result<()> {
        let record = TransactionRecord::Forget {
            transactional_id: transactional_id.to_owned(),
        };
        let mut state = self.state.lock();
        self.append(&mut state, &[record.encode()])?;
        state.producers.remove(transactional_id);
        self.snapshot_if_due(&mut state);
        Ok(())
    }

    /// Writes a commit record; answers the offset that must be durable.
    pub(crate) fn append_commit(&self, key: TransactionKey, partitions: Vec<ListedPartition>) -> Result<u64> {
        let record = TransactionRecord::Commit { key, partitions }.encode();
        let mut state = self.state.lock();
        let next = self.append(&mut state, std::slice::from_ref(&record))?;
        state.commits.insert(
            key,
            HeldCommit {
                record,
                markers: None,
            },
        );
        self.snapshot_if_due(&mut state);
        Ok(next)
    }

    /// Writes that a transaction is aborted although there is a commit record, and calls `done` once that is durable.
    pub(crate) fn append_abort(&self, key: TransactionKey, done: Completion) {
        let written = {
            let mut state = self.state.lock();
            let written = self.append(&mut state, &[TransactionRecord::Abort { key }.encode()]);
            if written.is_ok() {
                state.commits.remove(&key);
            }
            written
        };
        match written {
            Ok(next) => self.log.when_synced(next, done),
            Err(e) => done(Err(e)),
        }
    }

    /// The transaction is committed and its markers are written, but perhaps not durable yet.
    pub(crate) fn finished(&self, key: TransactionKey, markers: Vec<WrittenMarker>) {
        let mut state = self.state.lock();
        if let Some(held) = state.commits.get_mut(&key) {
            held.markers = Some(markers);
        }
        if state.commits.len() >= state.prune_at {
            state.prune();
            // Markers of partitions nobody writes to any more: have them synced.
            for marker in state
                .commits
                .values()
                .filter_map(|held| held.markers.as_ref())
                .flatten()
            {
                marker.log.schedule_if_dirty();
            }
            state.prune_at = state.commits.len() + LAZY_MARKERS;
        }
    }

    /// Keeps a commit record found when opening, whose markers were just written.
    pub(crate) fn hold(
        &self,
        key: TransactionKey,
        partitions: Vec<ListedPartition>,
        markers: Vec<WrittenMarker>,
    ) {
        let record = TransactionRecord::Commit { key, partitions }.encode();
        self.state.lock().commits.insert(
            key,
            HeldCommit {
                record,
                markers: Some(markers),
            },
        );
    }

    fn append(&self, state: &mut State, records: &[Vec<u8>]) -> Result<u64> {
        let mut batch = BatchBuilder::new(Compression::None);
        let now = self.log.now_ms();
        for record in records {
            batch.push(now, None, Some(record), &[]);
        }
        let mut sealed = batch.seal(None)?;
        state.since_snapshot += sealed.bytes().len() as u64;
        Ok(self.log.append(&mut sealed, 0)?.next)
    }

    /// Writes what still holds again, as one batch, and has the segments before it removed once it is durable.
    fn snapshot_if_due(&self, state: &mut State) {
        if state.since_snapshot < self.snapshot_bytes {
            return;
        }
        state.prune();
        let reset = TransactionRecord::Reset {
            next_producer_id: state.next_producer_id.max(state.promised_ids),
        };
        let mut records = vec![reset.encode()];
        for (transactional_id, who) in &state.producers {
            let (producer_id, epoch) = (who.id, who.epoch);
            let transactional_id = transactional_id.clone();
            records.push(
                TransactionRecord::Producer {
                    transactional_id,
                    producer_id,
                    epoch,
                }
                .encode(),
            );
        }
        records.extend(state.commits.values().map(|held| held.record.clone()));
        let before = self.log.end();
        match self.append(state, &records) {
            Ok(next) => {
                let log = Arc::clone(&self.log);
                let drop_before = move |durable: Result<()>| {
                    if durable.is_ok() {
                        log.drop_before(before);
                    }
                };
                self.log.when_synced(next, Box::new(drop_before));
            }
            Err(e) => tracing::warn!(error = %e, "the transaction log is not shortened yet"),
        }
        state.since_snapshot = 0;
    }
}

impl State {
    /// Forgets the commits whose markers are durable.
    fn prune(&mut self) {
        self.commits.retain(|key, held| {
            let durable = |m: &WrittenMarker| m.log.marker_durable(key.producer_id, m.first, m.next);
            !held
                .markers
                .as_ref()
                .is_some_and(|markers| markers.iter().all(durable))
        });
    }
}

/// Reads the whole log. Damage is an error: without it nobody can tell what is committed.
///
/// Segments go once what still held in them was written again behind a reset, so a log that does not begin at 0 has one.
fn replay(log: &Arc<Log>) -> Result<Replayed> {
    let corrupt = |offset, reason: &str| Error::Corrupt {
        topic: TRANSACTION_LOG.into(),
        partition: 0,
        path: log.dir.clone(),
        position: 0,
        offset,
        reason: reason.into(),
    };
    let log_start = log.now().log_start;
    let mut whole = log_start == 0;
    let mut replayed = Replayed {
        producers: BTreeMap::new(),
        commits: BTreeMap::new(),
        next_producer_id: 0,
    };
    let mut reader = Reader::new(Arc::clone(log), Start::Earliest, Isolation::ReadUncommitted)?;
    while let Some(fetched) = reader.try_next(1 << 20)? {
        for record in fetched.records() {
            let decoded = record.value.and_then(TransactionRecord::decode);
            let Some(decoded) = decoded else {
                return Err(corrupt(record.offset, "the record is none this version knows"));
            };
            whole |= matches!(decoded, TransactionRecord::Reset { .. });
            replayed.follow(decoded);
        }
    }
    if whole {
        Ok(replayed)
    } else {
        Err(corrupt(log_start, "what was before is missing"))
    }
}

impl Replayed {
    fn follow(&mut self, record: TransactionRecord) {
        match record {
            TransactionRecord::Reset { next_producer_id } => {
                self.producers.clear();
                self.commits.clear();
                self.next_producer_id = next_producer_id;
            }
            TransactionRecord::Producer {
                transactional_id,
                producer_id,
                epoch,
            } => {
                self.next_producer_id = self.next_producer_id.max(producer_id + 1);
                self.producers.insert(
                    transactional_id,
                    ProducerId {
                        id: producer_id,
                        epoch,
                    },
                );
            }
            TransactionRecord::Forget { transactional_id } => {
                self.producers.remove(&transactional_id);
            }
            TransactionRecord::Ids { next_producer_id } => {
                self.next_producer_id = self.next_producer_id.max(next_producer_id);
            }
            TransactionRecord::Commit { key, partitions } => {
                self.commits.insert(key, partitions);
            }
            TransactionRecord::Abort { key } => {
                self.commits.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Broker, TopicConfig};

    #[tokio::test]
    async fn an_id_whose_epochs_are_used_up_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let options = BrokerOptions::new(dir.path().join("data"));
        let one = |value: &str| {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(1, None, Some(value.as_bytes()), &[]);
            batch
        };
        let broker = Broker::open(options.clone()).unwrap();
        broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
        let id = broker.producer("p").await.unwrap().id();
        let transactions = &broker.coordinator().transactions;
        let epoch = i16::MAX - 2;
        let end = transactions
            .append_producer("p", ProducerId { id, epoch })
            .unwrap();
        transactions.log.synced(end).await.unwrap();
        drop(broker);

        let broker = Broker::open(options.clone()).unwrap();
        let last = broker.producer("p").await.unwrap();
        assert_eq!((last.id(), last.epoch()), (id, i16::MAX - 1));
        let mut open = last.begin().unwrap();
        open.append("t", 0, one("fenced")).await.unwrap();
        // Kafka's rule: the greatest epoch is never given out, since whoever has it could not be fenced by a marker.
        let first = broker.producer("p").await.unwrap();
        assert!(first.id() != id && first.epoch() == 0);
        let refused = open.append("t", 0, one("late")).await;
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
        assert!(matches!(open.commit().await, Err(Error::Fenced { .. })));
        assert!(matches!(last.begin(), Err(Error::Fenced { .. })));
        let mut transaction = first.begin().unwrap();
        transaction.append("t", 0, one("mine")).await.unwrap();
        transaction.commit().await.unwrap();
        let id = first.id();
        drop((first, last, broker));

        let broker = Broker::open(options).unwrap();
        let other = broker.producer("other").await.unwrap();
        let counting = broker
            .coordinator()
            .transactions
            .allocate_producer_id()
            .await
            .unwrap();
        let next = broker.producer("p").await.unwrap();
        assert_eq!((next.id(), next.epoch()), (id, 1));
        assert!(
            other.id() > id && counting > other.id(),
            "no id is given out twice"
        );
        let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
        let fetched = reader.try_next(1 << 20).unwrap().unwrap();
        let values: Vec<_> = fetched
            .records()
            .map(|record| record.value.unwrap().to_vec())
            .collect();
        assert_eq!(values, [b"mine"]);
    }
}
