//! When a log is compacted, in how many passes, and what damage, crashes and others who use it do to that.

use super::*;

#[tokio::test]
async fn more_keys_than_memory_take_several_passes() {
    let bench = Bench::new(&[("segment.bytes", "6000")]).await;
    let mut last = BTreeMap::new();
    for round in 0..3 {
        for n in 0..90 {
            let (key, value) = (format!("k{n}"), format!("{round}-{n}"));
            last.insert(bench.put(&[(&key, Some(&value))]).await, (key, value));
        }
    }
    bench.fill().await;
    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 40 * 24,
        stop: &stop,
    };
    let cleaned = bench.log().compact(limits).unwrap();
    assert!(cleaned.passes >= 3, "{cleaned:?}");
    let expected: Vec<_> = last
        .into_iter()
        .skip(180)
        .map(|(offset, (key, value))| row(offset, &key, Some(&value)))
        .collect();
    assert_eq!(bench.committed(), expected);
    assert_eq!(bench.compact(), Cleaned::default());
}

#[tokio::test]
async fn what_is_worth_it_and_what_must_wait() {
    let settings = [
        ("min.cleanable.dirty.ratio", "0.5"),
        ("min.compaction.lag.ms", "3600000"),
        ("max.compaction.lag.ms", "36000000"),
    ];
    let bench = Bench::new(&settings).await;
    let worthwhile = || bench.log().workload().unwrap().is_worthwhile(500_000);
    assert!(!worthwhile(), "nothing is closed");
    for n in 0..40 {
        bench.put(&[(&format!("k{n}"), Some(&"v".repeat(150)))]).await;
    }
    bench.fill().await;
    assert!(!worthwhile(), "too young");
    bench.clock.advance(HOUR);
    assert!(worthwhile());
    bench.compact();
    let clean: u64 = bench.sealed().iter().map(|s| s.size).sum();

    bench.fill().await;
    assert!(!worthwhile(), "too young");
    bench.clock.advance(HOUR);
    let work = bench.log().workload().unwrap();
    assert!(
        !worthwhile() && work.dirty_bytes > 0 && work.dirty_bytes < clean,
        "{work:?}"
    );
    bench.clock.advance(9 * HOUR);
    assert!(worthwhile(), "it has waited as long as it may");
    bench.broker.run_housekeeping_now();
    assert_eq!(bench.compact(), Cleaned::default(), "the cleaner did it");
}

#[tokio::test]
async fn a_damaged_segment_is_set_apart_and_those_before_it_are_compacted() {
    let bench = Bench::new(&[]).await;
    bench.put(&[("a", Some("1"))]).await;
    bench.put(&[("a", Some("2"))]).await;
    bench.fill().await;
    bench.put(&[("b", Some("1"))]).await;
    bench.fill().await;
    bench.put(&[("a", Some("3"))]).await;
    bench.fill().await;
    let [first, second, third] = bench.sealed()[..] else {
        panic!("{:?}", bench.sealed());
    };
    let path = bench.path(second.name());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 1 << 20,
        stop: &stop,
    };
    assert!(matches!(bench.log().compact(limits), Err(Error::Corrupt { .. })));
    assert_eq!(bench.sealed(), [first, second, third], "nothing was replaced");
    assert_eq!(bench.compact().passes, 1);
    let now = bench.sealed();
    assert_eq!((now[0].generation, &now[1..]), (1, &[second, third][..]));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(bench.compact(), Cleaned::default());
    // What is whole is served.
    let mut reader = bench.reader(0, Isolation::ReadCommitted);
    assert_eq!(
        reader
            .try_next(1 << 20)
            .unwrap()
            .unwrap()
            .records()
            .next()
            .unwrap()
            .offset,
        1
    );
    reader.seek(third.base).unwrap();
    assert_eq!(rows(&mut reader).len(), 1);
}

#[tokio::test]
async fn a_lost_checkpoint_leaves_the_highest_generations() {
    let bench = Bench::new(&[]).await;
    for round in 0..3 {
        for n in 0..10 {
            bench.put(&[(&format!("k{n}"), Some(&format!("{round}")))]).await;
        }
        bench.fill().await;
        bench.compact();
        // What a crash leaves that comes before the removal of what was replaced.
        let stale = bench.path(SegmentName::written(3));
        std::fs::write(&stale, b"no batch").unwrap();
    }
    let (expected, log) = (bench.committed(), bench.log());
    std::fs::write(log.dir.join("00000000000000000000-9.cleaned"), b"unfinished").unwrap();
    let sealed = bench.sealed();
    bench.broker.close().await.unwrap();
    std::fs::remove_file(log.dir.join("checkpoint")).unwrap();
    std::fs::write(log.dir.join("checkpoint"), b"not one").unwrap();
    let bench = bench.reopen(false).await;
    assert_eq!(bench.committed(), expected);
    let names: Vec<_> = sealed.iter().map(SealedSegment::name).collect();
    let found: Vec<_> = bench.sealed().iter().map(SealedSegment::name).collect();
    assert_eq!(found, names);
    assert!(
        bench
            .files()
            .iter()
            .all(|name| !name.contains("cleaned") && name != "00000000000000000003.log")
    );
}

#[tokio::test]
async fn readers_and_writers_go_on_while_it_runs() {
    let bench = Bench::new(&[]).await;
    let (log, stop) = (bench.log(), Arc::new(AtomicBool::new(false)));
    let cleaner = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let never = AtomicBool::new(false);
            let mut passes = 0;
            while !stop.load(Ordering::SeqCst) {
                let limits = CleanerLimits {
                    key_bytes: 2_000,
                    stop: &never,
                };
                passes += log.compact(limits).unwrap().passes;
            }
            passes
        })
    };
    let producer = bench.broker.producer("p").await.unwrap();
    let mut readers: Vec<_> = (0..3)
        .map(|_| (bench.reader(0, Isolation::ReadCommitted), 0, BTreeMap::new()))
        .collect();
    let mut last = BTreeMap::new();
    for n in 0..600_u64 {
        let (key, value) = (format!("k{}", n * 7 % 23), format!("{n:040}"));
        let mut transaction = producer.begin().unwrap();
        transaction
            .append("t", 0, batch(&[(&key, Some(&value))]))
            .await
            .unwrap();
        if n % 4 == 0 {
            transaction.abort().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            last.insert(key, value);
        }
        // Some readers follow closely, some lag behind.
        for (i, (reader, least, seen)) in readers.iter_mut().enumerate() {
            if n % (1 + 40 * i as u64) != 0 {
                continue;
            }
            for (offset, key, value) in rows(reader) {
                assert!(offset >= *least, "offsets rise");
                *least = offset + 1;
                let number: u64 = value.as_ref().unwrap().parse().unwrap();
                assert!(!number.is_multiple_of(4), "{number} was aborted");
                seen.insert(key, value.unwrap());
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    assert!(cleaner.join().unwrap() > 0);
    for (reader, _, seen) in &mut readers {
        seen.extend(
            rows(reader)
                .into_iter()
                .map(|(_, key, value)| (key, value.unwrap())),
        );
        assert_eq!(*seen, last, "each reader has the last of each key");
    }
}
