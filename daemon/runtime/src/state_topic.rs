//! A topic of one partition that is a map: the last value of each key counts, a null value removes it.

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
    /// Opens the topic `name`, which is made where it is missing, and reads all of it: every key and value in the order
    /// written, so that a later entry goes before an earlier one of its key. To be called before anybody writes to it: a
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
        let mut state = Vec::new();
        while let Some(fetched) = reader.try_next(1 << 20).await? {
            let keyed = fetched
                .records()
                .filter_map(|record| Some((record.key?.to_vec(), record.value.map(<[u8]>::to_vec))));
            state.extend(keyed);
        }
        Ok((Self { broker, partition }, state))
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
