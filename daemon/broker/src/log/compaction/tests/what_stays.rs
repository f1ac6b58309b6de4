//! Which records stay, where they are found, and what they look like.

use super::*;

#[tokio::test]
async fn the_last_of_each_key_stays_at_its_offset() {
    let bench = Bench::new(&[]).await;
    bench.put(&[("a", Some("1")), ("b", Some("1"))]).await;
    bench.put(&[("a", Some("2")), ("c", Some("1"))]).await;
    bench.fill().await;
    let next = bench.put(&[("a", Some("3"))]).await;
    bench.fill().await;
    let before = bench.broker.offsets("t", 0).unwrap();

    let cleaned = bench.compact();
    assert_eq!(cleaned.passes, 1);
    assert!(cleaned.written < cleaned.read / 2, "{cleaned:?}");
    let expected = [
        row(1, "b", Some("1")),
        row(3, "c", Some("1")),
        row(next, "a", Some("3")),
    ];
    assert_eq!(bench.committed(), expected);
    assert_eq!(bench.rows(Isolation::ReadUncommitted), expected);
    assert_eq!(bench.broker.offsets("t", 0).unwrap(), before);
    let [first, second] = bench.sealed()[..] else {
        panic!("{:?}", bench.sealed());
    };
    assert_eq!((first.base, first.generation, second.generation), (0, 1, 1));
    let files = [
        "00000000000000000000-1.log".to_owned(),
        format!("{:020}-1.log", second.base),
        format!("{:020}.log", second.next),
        "checkpoint".to_owned(),
    ];
    assert_eq!(bench.files(), files, "what was replaced is gone");
    assert_eq!(bench.compact(), Cleaned::default(), "there is nothing left to do");

    // Readers begin anywhere, at what went too.
    for start in 0..before.end {
        let expected: Vec<_> = expected.iter().filter(|row| row.0 >= start).cloned().collect();
        assert_eq!(
            rows(&mut bench.reader(start, Isolation::ReadCommitted)),
            expected,
            "from {start}"
        );
    }
    for clean in [false, true] {
        let bench = bench_again(&bench, clean).await;
        assert_eq!(bench.committed(), expected);
        assert_eq!(bench.compact(), Cleaned::default());
    }

    // Neighbours that have become small become one.
    bench.fill().await;
    bench.compact();
    let one = bench.sealed()[0];
    assert_eq!((one.base, one.next, one.generation), (0, second.next, 2));
    assert_eq!(bench.committed(), expected);
}

#[tokio::test]
async fn tombstones_stay_for_their_time_after_they_were_compacted() {
    let bench = Bench::new(&[]).await;
    bench.put(&[("a", Some("1")), ("b", Some("1"))]).await;
    bench.put(&[("a", None)]).await;
    bench.fill().await;
    bench.clock.advance(10 * HOUR);
    bench.compact();
    let with = [row(1, "b", Some("1")), row(2, "a", None)];
    assert_eq!(
        bench.committed(),
        with,
        "their time begins when they are compacted"
    );
    bench.clock.advance(HOUR);
    assert_eq!(bench.compact().passes, 0);
    let bench = bench.reopen(true).await;
    assert_eq!(bench.committed(), with);
    // A clock set back in between makes it longer, not shorter.
    bench.clock.set_wall_clock(START);
    assert_eq!(bench.compact().passes, 0);
    bench.clock.set_wall_clock(START + 12 * 3_600_000);
    assert_eq!(bench.compact().passes, 1, "due although nothing is dirty");
    assert_eq!(bench.committed(), with[..1]);
    assert_eq!(bench.sealed()[0].tombstones, None);
}

#[tokio::test]
async fn transactions_leave_their_committed_records_and_nothing_else() {
    let bench = Bench::new(&[]).await;
    let producer = bench.broker.producer("p").await.unwrap();
    let mut aborted = producer.begin().unwrap();
    aborted
        .append("t", 0, batch(&[("a", Some("no")), ("z", Some("no"))]))
        .await
        .unwrap();
    bench.put(&[("a", Some("1"))]).await;
    aborted.abort().await.unwrap();
    let mut committed = producer.begin().unwrap();
    committed
        .append("t", 0, batch(&[("b", Some("yes"))]))
        .await
        .unwrap();
    committed.commit().await.unwrap();
    // An aborted record does not supersede one that counts.
    let mut aborted = producer.begin().unwrap();
    aborted.append("t", 0, batch(&[("b", Some("no"))])).await.unwrap();
    aborted.abort().await.unwrap();
    bench.fill().await;

    // A transaction that is open holds back what comes after its beginning.
    let mut open = producer.begin().unwrap();
    open.append("t", 0, batch(&[("b", Some("later"))])).await.unwrap();
    bench.fill().await;
    bench.fill().await;
    let sealed = bench.sealed().len();
    let mut old = bench.reader(0, Isolation::ReadCommitted);
    assert_eq!(
        old.try_next(1).unwrap().unwrap().records().next().unwrap().value,
        Some(&b"1"[..])
    );
    bench.compact();
    let now = bench.sealed();
    assert!(
        now.len() == sealed && now[0].generation == 1 && now[1].generation == 0,
        "{now:?}"
    );
    let expected = [row(2, "a", Some("1")), row(4, "b", Some("yes"))];
    assert_eq!(bench.committed(), expected);
    assert_eq!(rows(&mut old), expected[1..], "a reader in the middle goes on");
    let scan = bench.rows(Isolation::ReadUncommitted);
    assert_eq!((&scan[..2], scan[2].2.as_deref()), (&expected[..], Some("later")));
    {
        let log = bench.log();
        let aborted = log.aborted.read();
        assert!(
            aborted.ranges.is_empty() && aborted.plain == now[0].next,
            "{aborted:?}"
        );
    }

    open.commit().await.unwrap();
    bench.compact();
    assert_eq!(bench.committed().last().unwrap().2.as_deref(), Some("later"));
    drop((producer, old));
    let bench = bench.reopen(false).await;
    assert_eq!(bench.committed().len(), 2);
}

#[tokio::test]
async fn a_record_without_a_key_is_refused_and_one_that_is_there_stays() {
    let bench = Bench::new(&[]).await;
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(START, Some(b"k"), Some(b"v"), &[]);
    keyless.push(START, None, Some(b"v"), &[]);
    let refused = bench.broker.append("t", 0, keyless).await;
    assert!(matches!(refused, Err(Error::KeyRequired { .. })), "{refused:?}");

    // From before the topic was compacted.
    let compacted = bench.log().settings();
    let mut deleted = (*compacted).clone();
    deleted.cleanup_policy.compact = false;
    bench.log().set_settings(Arc::new(deleted));
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(START, None, None, &[]);
    bench.broker.append("t", 0, keyless).await.unwrap();
    bench.log().set_settings(compacted);
    bench.put(&[("a", Some("1"))]).await;
    bench.fill().await;
    bench.clock.advance(100 * HOUR);
    bench.compact();
    bench.clock.advance(100 * HOUR);
    bench.compact();
    let mut reader = bench.reader(0, Isolation::ReadCommitted);
    let fetched = reader.try_next(1 << 20).unwrap().unwrap();
    let first = fetched.records().next().unwrap();
    assert_eq!((first.offset, first.key, first.value), (0, None, None));
}

#[tokio::test]
async fn times_are_found_after_compaction() {
    let bench = Bench::new(&[]).await;
    for n in 0..60 {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(
            START + n * 10,
            Some(format!("k{}", n % 20).as_bytes()),
            Some(&[b'v'; 40]),
            &[],
        );
        bench.broker.append("t", 0, batch).await.unwrap();
    }
    bench.fill().await;
    bench.compact();
    let log = bench.log();
    for n in 40..60_u64 {
        assert_eq!(
            log.offset_for_time(START + n as i64 * 10, u64::MAX).unwrap(),
            Some(n)
        );
    }
    assert_eq!(log.offset_for_time(START, u64::MAX).unwrap(), Some(40));
}

#[tokio::test]
async fn committed_offsets_are_compacted_and_read_back() {
    let bench = Bench::new(&[]).await;
    for n in 0..200 {
        bench
            .broker
            .commit_group_offsets("g", &[("t", 0, n), ("t", 1, n * 2)])
            .await
            .unwrap();
    }
    bench
        .broker
        .commit_group_offsets("gone", &[("t", 0, 1)])
        .await
        .unwrap();
    bench.broker.delete_group_offsets("gone").await.unwrap();
    let log = bench.broker.log(crate::GROUP_OFFSETS_TOPIC, 0).unwrap();
    let size = |log: &Log| log.state.lock().sealed.iter().map(|s| s.size).sum::<u64>();
    let before = size(&log);
    bench.broker.run_housekeeping_now();
    assert!(size(&log) < before / 10, "{} of {before}", size(&log));
    let bench = bench.reopen(true).await;
    assert_eq!(bench.broker.group_offsets("g")[&("t".to_owned(), 1)], 398);
    assert_eq!(bench.broker.groups(), ["g"]);
}
