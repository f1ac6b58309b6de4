//! What fuzzing calls: arbitrary bytes where the broker reads its own. Whatever they are, it answers with an error or
//! with records, in bounded memory and time, and does not panic.
//!
//! The targets are in `daemon/broker/fuzz`, in the layout of cargo-fuzz, which needs a nightly toolchain and is no part
//! of the workspace:
//!
//! ```text
//! cargo install cargo-fuzz --locked
//! cd daemon/broker
//! mkdir -p fuzz/corpus/batches
//! cargo +nightly fuzz run batches fuzz/corpus/batches fuzz/seeds/batches -- -max_len=4096
//! cargo +nightly fuzz run recovery -- -max_len=512 -len_control=0 -rss_limit_mb=1024
//! ```
//! The seeds are batches of each codec, as `what_is_written_is_walked` has them; with `BROKER_FUZZ_SEEDS` naming a
//! directory it writes them there. The same functions run on the stable toolchain with random bytes as part of the tests.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::memory_disk::MemoryDisk;
use crate::batch::compression::Compression;
use crate::batch::fetched::{Gather, Taken};
use crate::batch::header::{BatchHeader, CRC_START, crc32c};
use crate::disk::{Disk, OpenMode};
use crate::log::transaction_state::BatchInfo;
use crate::{BatchBuilder, Broker, BrokerOptions, Isolation, Start, TopicConfig};

/// Reads batches: the header, the records with each codec, what transactions want to know. An odd first byte gives each
/// batch the checksum it lacks, else hardly any would come further.
pub fn batches(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    for codec in Compression::ALL {
        let mut out = vec![7];
        let limit = 1 << 20;
        // That the bytes are bad is fine; that more comes out than allowed is not.
        let _ = codec.decompress(data, &mut out, limit);
        assert!(
            out[0] == 7 && out.len() <= 1 + limit,
            "{codec} gave {} bytes",
            out.len()
        );
    }
    let mut data = data.to_vec();
    if mode & 1 == 1 {
        seal(&mut data);
    }
    let mut gather = Gather::new(1 << 20, 0);
    let (mut at, mut next) = (0, 0);
    while let Ok(header) = BatchHeader::check(&data[at..], None) {
        let batch = &data[at..at + header.length];
        let _ = BatchInfo::of(&header, batch);
        match gather.take(header, &data, at) {
            Ok(Taken::Yes) => {}
            Ok(Taken::Full) | Err(_) => break,
        }
        at += header.length;
        next = header.last_offset();
    }
    let fetched = gather.finish(Bytes::from(data), next);
    let told = fetched.len();
    let mut walked = 0;
    for record in fetched.records() {
        assert_eq!(record.headers().count(), record.headers().len());
        walked += 1;
    }
    assert_eq!(walked, told, "what was checked can be read");
}

/// Gives the batches at the front of `data` the checksums they lack.
fn seal(mut data: &mut [u8]) {
    while let Ok(header) = BatchHeader::parse(data, None) {
        let Some((batch, rest)) = data.split_at_mut_checked(header.length) else {
            return;
        };
        let crc = crc32c(&batch[CRC_START..]);
        batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        data = rest;
    }
}

/// Changes the files of a data directory as `data` says, opens it, and reads and writes what there is.
pub fn recovery(data: &[u8]) {
    static DIR: OnceLock<BTreeMap<PathBuf, Vec<u8>>> = OnceLock::new();
    let mut files = DIR.get_or_init(directory).clone();
    let mut data = data;
    for _ in 0..16 {
        if change(&mut files, &mut data).is_none() {
            break;
        }
    }
    let disk = MemoryDisk::new();
    if store(&disk, &files).is_err() {
        return;
    }
    let Ok(broker) = open(&disk) else {
        assert_eq!(disk.handles(), 1, "what could not be opened is kept open");
        return;
    };
    for topic in broker.topics() {
        for partition in 0..topic.partitions.min(4) {
            for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
                read(&broker, &topic.name, partition, isolation);
            }
        }
    }
    block_on(async {
        // Whether it takes writes depends on what is left of it.
        let _ = broker.append("t", 0, one("more")).await;
        if let Ok(producer) = broker.producer("p").await
            && let Ok(mut transaction) = producer.begin()
            && transaction.append("t", 0, one("transaction")).await.is_ok()
        {
            let _ = transaction.commit().await;
        }
        let _ = broker.close().await;
    });
    drop(broker);
    // What it made of it, it opens again.
    let again = open(&disk);
    assert!(again.is_ok(), "{:?}", again.err());
    drop(again);
    assert_eq!(disk.handles(), 1, "what was closed is kept open");
}

fn read(broker: &Broker, topic: &str, partition: u32, isolation: Isolation) {
    let Ok(mut reader) = broker.reader(topic, partition, Start::Earliest, isolation) else {
        return;
    };
    let mut position = None;
    while let Ok(Some(fetched)) = reader.try_next(1 << 16) {
        assert!(position < Some(fetched.next_offset()), "a reader goes forward");
        position = Some(fetched.next_offset());
    }
}

/// Takes one change from `data` and makes it: which file, what, where, how much, and the bytes for it.
fn change(files: &mut BTreeMap<PathBuf, Vec<u8>>, data: &mut &[u8]) -> Option<()> {
    let ([which, what, at_high, at_low, len], rest) = data.split_first_chunk::<5>()?;
    let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*len)));
    *data = rest;
    let nth = usize::from(*which) % files.len();
    let (path, content) = files.iter_mut().nth(nth)?;
    let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % (content.len() + 1);
    match what & 7 {
        0 | 1 => {
            let end = content.len().min(at + bytes.len());
            content[at..end].copy_from_slice(&bytes[..end - at]);
        }
        2 => content.truncate(at),
        3 => *content = bytes.to_vec(),
        4 => content.extend_from_slice(bytes),
        5 => drop(content.splice(at..at, bytes.iter().copied())),
        6 => {
            let path = path.clone();
            files.remove(&path);
            return (!files.is_empty()).then_some(());
        }
        _ => {
            // A stretch of it once more.
            let stretch = content[at..content.len().min(at + usize::from(*len))].to_vec();
            content.extend_from_slice(&stretch);
        }
    }
    if what & 8 == 8 {
        if path.extension().is_some_and(|extension| extension == "log") {
            seal(content);
        } else if path.ends_with("checkpoint") && content.len() > 9 {
            let crc = format!("{:08x}\n", crc32c(&content[9..]));
            content[..9].copy_from_slice(crc.as_bytes());
        }
    }
    Some(())
}

/// The files of a broker that was in the middle of its work.
fn directory() -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = MemoryDisk::new();
    let write = async {
        let broker = open(&disk)?;
        broker.create_topic("t", TopicConfig::new(2)).await?;
        let producer = broker.producer("p").await?;
        for i in 0..12 {
            for codec in [Compression::None, Compression::Lz4] {
                let mut batch = BatchBuilder::new(codec);
                batch.push(
                    i,
                    Some(b"key"),
                    Some(format!("value {i}").as_bytes()),
                    &[("h", Some(b"v"))],
                );
                broker.append("t", 0, batch).await?;
            }
            let mut transaction = producer.begin()?;
            transaction.append("t", 0, one("a")).await?;
            transaction.append("t", 1, one("b")).await?;
            transaction
                .commit_group_offsets("g", &[("t", 0, i as u64)])
                .await?;
            if i % 3 == 0 {
                transaction.abort().await?;
            } else {
                transaction.commit().await?;
            }
        }
        Ok(())
    };
    let written: crate::Result<()> = block_on(write);
    assert!(written.is_ok(), "{written:?}");
    disk.files()
}

fn store(disk: &MemoryDisk, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for (path, content) in files {
        disk.create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        disk.open(path, OpenMode::Empty)?.write_all_at(content, 0)?;
    }
    Ok(())
}

fn open(disk: &MemoryDisk) -> crate::Result<Broker> {
    let options = BrokerOptions {
        segment_bytes: 1_000,
        checkpoint_bytes: 500,
        index_interval_bytes: 100,
        flush_threads: 1,
        ..BrokerOptions::new("/data")
    };
    Broker::open_on(Arc::new(disk.clone()), options)
}

fn one(value: &str) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1, None, Some(value.as_bytes()), &[]);
    batch
}

/// Runs what waits for nothing but the broker's own threads.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let parked = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&parked);
    loop {
        if let std::task::Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::park();
    }
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::header::HEADER_BYTES;

    /// A batch as the broker stores it.
    fn stored(codec: Compression) -> Vec<u8> {
        let mut batch = BatchBuilder::new(codec);
        for i in 0..5 {
            batch.push(
                i,
                Some(b"key"),
                Some(&[b'v'; 40]),
                &[("name", Some(b"value")), ("none", None)],
            );
        }
        batch.seal(None).unwrap().bytes().to_vec()
    }

    fn a_change() -> impl Strategy<Value = Vec<u8>> {
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            (0..5_usize).prop_map(|codec| stored(Compression::ALL[codec])),
        ];
        (any::<[u8; 4]>(), bytes).prop_map(|(head, bytes)| [&head[..], &[bytes.len() as u8], &bytes].concat())
    }

    #[test]
    fn what_is_written_is_walked() {
        for codec in Compression::ALL {
            let batch = stored(codec);
            assert!(batch.len() > HEADER_BYTES);
            let input = [&[1], &batch[..]].concat();
            batches(&input);
            if let Some(dir) = std::env::var_os("BROKER_FUZZ_SEEDS") {
                std::fs::write(Path::new(&dir).join(codec.to_string()), input).unwrap();
            }
        }
    }

    /// A log that recovery had queued kept the flusher, and it the log.
    #[test]
    fn an_opening_that_fails_after_it_aborted_a_transaction_keeps_nothing_open() {
        recovery(&[0x8e, 0x8e, 0x8e, 0x8e, 0x8e, 0x2e]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_are_no_batch(data in prop::collection::vec(any::<u8>(), 0..500)) {
            batches(&data);
        }

        #[test]
        fn changed_batches_are_read_or_refused(
            codec in 0..5_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut data = stored(Compression::ALL[codec]);
            for (at, byte) in changes {
                let at = at.index(data.len());
                data[at] = byte;
            }
            batches(&[&[1], &data[..]].concat());
        }

        #[test]
        fn a_changed_directory_is_opened_or_refused(changes in prop::collection::vec(a_change(), 1..6)) {
            recovery(&changes.concat());
        }
    }
}
