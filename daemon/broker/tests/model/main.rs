//! The broker against a model: vectors, which cannot get it wrong. Appends, numbered batches sent again, transactions,
//! rolled segments, readers that go on and seek, lookups by time, clean stops and others.
//!
//! What compaction leaves is held against a model of its own, beside its code, where the power can fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod run;
#[path = "../support/mod.rs"]
mod support;
mod vector;

use std::env;

use proptest::prelude::*;
use run::Run;
use support::options;
use tidewater_broker::{BrokerOptions, Durability};

const PARTITIONS: u32 = 3;
const PRODUCERS: usize = 2;
const SEGMENT_BYTES: u64 = 900;
/// Timestamps are below this, in any order.
const LATEST: i64 = 100;

#[derive(Debug, Clone)]
enum Step {
    Append {
        partition: u32,
        records: usize,
        size: usize,
        lz4: bool,
    },
    /// A batch of a producer that numbers them.
    Numbered {
        partition: u32,
        records: usize,
        size: usize,
    },
    /// One of its batches once more, counted from the last.
    Again {
        partition: u32,
        back: usize,
    },
    /// A batch of it whose sequence is too high.
    Gap {
        partition: u32,
        by: i32,
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
    /// A new reader.
    ReadFrom {
        partition: u32,
        part: u8,
        max_bytes: usize,
    },
    /// The reader that is there is set to another place.
    Seek {
        partition: u32,
        part: u8,
    },
    /// It goes on, with so many reads.
    Follow {
        partition: u32,
        reads: usize,
        max_bytes: usize,
    },
    /// Looks for the first record from this time on.
    Find {
        partition: u32,
        timestamp: i64,
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
        4 => (partition.clone(), 1..5_usize, 0..120_usize)
            .prop_map(|(partition, records, size)| Step::Numbered { partition, records, size }),
        3 => (partition.clone(), 0..8_usize).prop_map(|(partition, back)| Step::Again { partition, back }),
        1 => (partition.clone(), 1..3_i32).prop_map(|(partition, by)| Step::Gap { partition, by }),
        2 => (producer.clone(), 0..1000_u64).prop_map(|(producer, next)| Step::Offset { producer, next }),
        3 => producer.clone().prop_map(Step::Commit),
        1 => producer.clone().prop_map(Step::Abort),
        1 => producer.prop_map(Step::TakeOver),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        1 => (partition.clone(), any::<u8>()).prop_map(|(partition, part)| Step::Delete { partition, part }),
        1 => (0..4000_u64).prop_map(|bytes| Step::Retain { bytes }),
        2 => (partition.clone(), any::<u8>(), 1..3000_usize)
            .prop_map(|(partition, part, max_bytes)| Step::ReadFrom { partition, part, max_bytes }),
        2 => (partition.clone(), any::<u8>()).prop_map(|(partition, part)| Step::Seek { partition, part }),
        3 => (partition.clone(), 0..9_usize, 1..3000_usize)
            .prop_map(|(partition, reads, max_bytes)| Step::Follow { partition, reads, max_bytes }),
        2 => (partition, 0..LATEST + 2).prop_map(|(partition, timestamp)| Step::Find { partition, timestamp }),
    ]
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
    let mut run = Run::new(options).await;
    for step in steps {
        run.step(step).await;
    }
    run.check();
    run.reopen(true).await;
}

fn cases(default: u32) -> u32 {
    env::var("TIDEWATER_MODEL_CASES").map_or(default, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(32), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}
