//! A topic of one partition that is a map: the last value of each key counts, a null value removes it.

use std::collections::HashMap;
use std::sync::Arc;

use tidewater_broker::{BatchBuilder, Compression};
use tidewater_plugin_api::TopicPartition;

use crate::broker::{Broker, PartitionBatch};
use crate::error::Result;

/// A topic that keeps state.
pub struct StateTopic {
    broker: Arc<dyn Broker>,
    partition: TopicPartition,
}

impl StateTopic {
    /// Opens the topic `name`, which is made where it is missing, and reads all of it. To be called before anybody
    /// writes to it: a transaction that is open would hide what follows it.
    pub async fn open(broker: Arc<dyn Broker>, name: &str) -> Result<(Self, HashMap<Vec<u8>, Vec<u8>>)> {
        let settings = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        broker.ensure_topic(name, 1, &settings).await?;
        let partition = TopicPartition { topic: name.to_owned(), partition: 0 };
        let (start, end) = broker.bounds(&partition)?;
        let mut reader = broker.reader(&partition, start)?;
        let mut state = HashMap::new();
        while reader.position() < end {
            let fetched = reader.next(1 << 20).await?;
            for record in fetched.records() {
                let Some(key) = record.key else { continue };
                match record.value {
                    Some(value) => state.insert(key.to_vec(), value.to_vec()),
                    None => state.remove(key),
                };
            }
        }
        Ok((Self { broker, partition }, state))
    }

    /// A batch that sets keys, for a transaction that covers more than this topic.
    pub fn batch(&self, entries: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) -> PartitionBatch {
        let mut records = BatchBuilder::new(Compression::None);
        let now = unix_millis();
        for (key, value) in entries {
            records.push(now, Some(&key), value.as_deref(), &[]);
        }
        PartitionBatch { partition: self.partition.clone(), records }
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
