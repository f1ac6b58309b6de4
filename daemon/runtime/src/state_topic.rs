//! A topic of one partition that is a map: the last value of each key counts, a null value removes it.

use std::collections::HashMap;
use std::sync::Arc;

use tidewater_broker::{BatchBuilder, Compression};
use tidewater_plugin_api::TopicPartition;

use crate::broker::{Broker, PartitionBatch};
use crate::error::Result;

/// A key and what it was set to; none where it was removed.
pub type Entry = (Vec<u8>, Option<Vec<u8>>);

/// A topic that keeps state.
pub struct StateTopic {
    broker: Arc<dyn Broker>,
    partition: TopicPartition,
}

impl StateTopic {
    /// Opens the topic `name`, which is made where it is missing, and reads all of it: the last entry of each key, in the
    /// order written, so that memory is taken by what is kept and not by all that ever was. To be called before anybody writes to it: a
    /// transaction that is open would hide what follows it.
    pub async fn open(broker: Arc<dyn Broker>, name: &str) -> Result<(Self, Vec<Entry>)> {
        let settings = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        broker.ensure_topic(name, 1, &settings).await?;
        let partition = TopicPartition {
            topic: name.to_owned(),
            partition: 0,
        };
        let (start, _) = broker.bounds(&partition)?;
        let mut reader = broker.reader(&partition, start)?;
        let mut last: HashMap<Vec<u8>, (u64, Option<Vec<u8>>)> = HashMap::new();
        while let Some(fetched) = reader.try_next(1 << 20).await? {
            for record in fetched.records() {
                let Some(key) = record.key else { continue };
                let entry = (record.offset, record.value.map(<[u8]>::to_vec));
                match last.get_mut(key) {
                    Some(known) => *known = entry,
                    None => drop(last.insert(key.to_vec(), entry)),
                }
            }
        }
        let mut state: Vec<_> = last.into_iter().collect();
        state.sort_unstable_by_key(|(_, (offset, _))| *offset);
        let entries = state.into_iter().map(|(key, (_, value))| (key, value)).collect();
        Ok((Self { broker, partition }, entries))
    }

    /// A batch that sets keys, for a transaction that covers more than this topic.
    pub fn batch(&self, entries: impl IntoIterator<Item = Entry>) -> PartitionBatch {
        let mut records = BatchBuilder::new(Compression::None);
        let now = unix_millis();
        for (key, value) in entries {
            records.push(now, Some(&key), value.as_deref(), &[]);
        }
        PartitionBatch {
            partition: self.partition.clone(),
            records,
        }
    }

    /// Appends a [`batch`](Self::batch) of this topic alone, durably.
    pub async fn append(&self, batch: PartitionBatch) -> Result<()> {
        self.broker.append(batch).await
    }

    /// Sets one key, durably.
    pub async fn put(&self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        self.broker.append(self.batch([(key, value)])).await
    }
}

/// Milliseconds since 1970, as records carry them.
pub fn unix_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
