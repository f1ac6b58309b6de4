//! What several test files use.

#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod group;

use std::fs;
use std::path::Path;

use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Reader, Start};

pub fn options(dir: &tempfile::TempDir) -> BrokerOptions {
    BrokerOptions {
        // Most records here have timestamps of long ago.
        topic_defaults: [("retention.ms".to_owned(), "-1".to_owned())].into(),
        ..BrokerOptions::new(dir.path().join("data"))
    }
}

pub fn batch(values: &[&str]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for value in values {
        batch.push(1, None, Some(value.as_bytes()), &[]);
    }
    batch
}

/// All that is visible now, as (offset, value).
pub fn drain(reader: &mut Reader) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        let text = |v: Option<&[u8]>| String::from_utf8(v.unwrap_or_default().to_vec()).unwrap();
        let before = all.len();
        all.extend(fetched.records().map(|r| (r.offset, text(r.value))));
        assert_eq!(all.len() - before, fetched.len());
    }
    all
}

pub fn read(broker: &Broker, topic: &str, partition: u32, isolation: Isolation) -> Vec<(u64, String)> {
    drain(
        &mut broker
            .reader(topic, partition, Start::Earliest, isolation)
            .unwrap(),
    )
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A generator of numbers that is the same in every run for the same seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}
