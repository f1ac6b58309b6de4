//! Load on a broker: batches of a given size, and writers that keep one append each in flight.

use std::path::Path;
use std::time::{Duration, Instant};

use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};
use tokio::runtime::{Builder, Runtime};

use crate::process::cpu_seconds;
use crate::raw::{Done, noise};
use crate::{Failure, Result};

/// Sync threads of the broker, and of the raw figures beside it.
pub const SYNCS: usize = 4;

pub fn options(dir: &Path) -> BrokerOptions {
    BrokerOptions {
        flush_threads: SYNCS,
        ..BrokerOptions::new(dir)
    }
}

pub fn open(dir: &Path) -> Result<Broker> {
    Ok(Broker::open(options(dir))?)
}

/// A runtime like that of a daemon on a small machine.
pub fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// What a topic of a benchmark is created with.
pub fn topic(partitions: u32, durability: &str) -> TopicConfig {
    let mut config = TopicConfig::new(partitions);
    config
        .settings
        .insert("durability".to_owned(), durability.to_owned());
    config
}

/// Makes batches of about so many bytes, of records of at most 1 KB.
#[derive(Clone)]
pub struct Batches {
    value: Vec<u8>,
    records: usize,
}

impl Batches {
    pub fn of(bytes: usize) -> Self {
        let records = bytes.div_ceil(1_024);
        // Header of a batch and of its records aside.
        let value = (bytes - 61) / records - 16;
        Self {
            value: noise(value),
            records,
        }
    }

    /// Batches of small records, each with so many bytes of value.
    pub fn of_records(records: usize, value: usize) -> Self {
        Self {
            value: noise(value),
            records,
        }
    }

    pub fn batch(&self) -> BatchBuilder {
        let mut batch = BatchBuilder::new(Compression::None);
        for i in 0..self.records {
            let key = (i as u64).to_be_bytes();
            batch.push(1_700_000_000_000 + i as i64, Some(&key), Some(&self.value), &[]);
        }
        batch
    }

    /// Bytes of one batch.
    pub fn bytes(&self) -> usize {
        self.batch().bytes()
    }
}

/// Makes batches of about 64 KB whose records have one of so many keys each, in no order.
pub struct KeyedBatches {
    value: Vec<u8>,
    keys: u64,
    random: fastrand::Rng,
}

impl KeyedBatches {
    pub fn new(value: usize, keys: u64) -> Self {
        Self {
            value: noise(value),
            keys,
            random: fastrand::Rng::with_seed(11),
        }
    }

    pub fn next_batch(&mut self) -> BatchBuilder {
        let mut batch = BatchBuilder::new(Compression::None);
        while batch.bytes() < 64 << 10 {
            let key = self.random.u64(0..self.keys).to_be_bytes();
            batch.push(1_700_000_000_000, Some(&key), Some(&self.value), &[]);
        }
        batch
    }
}

/// `writers` writers append to the partitions in turn for some time, each waiting for its append to be durable.
pub async fn write(
    broker: &Broker,
    topic: &str,
    partitions: u32,
    writers: u32,
    batches: &Batches,
    time: Duration,
) -> Result<Done> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut running = Vec::new();
    for writer in 0..writers {
        let (broker, topic, batches) = (broker.clone(), topic.to_owned(), batches.clone());
        let write = async move {
            let mut bytes = 0;
            let mut partition = writer % partitions;
            while begun.elapsed() < time {
                let batch = batches.batch();
                bytes += batch.bytes() as u64;
                broker.append(&topic, partition, batch).await?;
                // With more partitions than writers, each writer goes round its share of them.
                partition = if writers < partitions && partition + writers < partitions {
                    partition + writers
                } else {
                    writer % partitions
                };
            }
            Ok::<u64, Failure>(bytes)
        };
        running.push(tokio::spawn(write));
    }
    let mut bytes = 0;
    for writer in running {
        bytes += writer.await??;
    }
    Ok(Done {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
    })
}
