//! Somebody sets the wall clock back, or it was ahead: nothing is lost, nothing goes early, and nothing waits for the
//! time to come again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::{batch, options, read};
use tidewater_broker::{
    Broker, BrokerOptions, Clock, Error, Isolation, ManualClock, Sequence, Start, TopicConfig,
};

const NOW: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_hours(1);
const DAY_MS: i64 = 86_400_000;

fn open(clock: &Arc<ManualClock>, options: BrokerOptions) -> Broker {
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    Broker::open_with_clock(options, clock).unwrap()
}

async fn create(broker: &Broker, settings: &[(&str, &str)]) {
    let config = TopicConfig {
        settings: settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..TopicConfig::new(1)
    };
    broker.create_topic("t", config).await.unwrap();
}

/// The segments of partition 0 of the topic.
fn segments(broker: &Broker, data: &Path) -> usize {
    let id = broker.topic("t").unwrap().id;
    let dir = data.join("topics").join(id.to_string()).join("0");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .count()
}

#[tokio::test]
async fn records_stamped_by_the_broker_are_all_found_by_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(NOW)));
    let options = BrokerOptions {
        segment_bytes: 600,
        index_interval_bytes: 100,
        ..options(&dir)
    };
    let broker = open(&clock, options.clone());
    create(&broker, &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut times = Vec::new();
    // Back by a day in the middle, and by an hour now and then.
    for n in 0_i64..60 {
        let back = if n >= 30 { DAY_MS } else { 0 };
        let jitter = if n % 7 == 3 { 3_600_000 } else { 0 };
        times.push(NOW + n * 1_000 - back - jitter);
        clock.set_wall_clock(times[n as usize]);
        broker.append("t", 0, batch(&[&n.to_string()])).await.unwrap();
    }
    assert!(segments(&broker, &dir.path().join("data")) > 4);
    for reopened in [false, true] {
        let broker = if reopened {
            broker.close().await.unwrap();
            open(&clock, options.clone())
        } else {
            broker.clone()
        };
        let all = read(&broker, "t", 0, Isolation::ReadCommitted);
        assert_eq!(all.len(), 60);
        for wanted in times.iter().flat_map(|time| [time - 1, *time, time + 1]) {
            let first = times.iter().position(|time| *time >= wanted);
            let found = broker.offset_for_time("t", 0, wanted).await.unwrap();
            assert_eq!(found, first.map(|at| at as u64), "{wanted}");
        }
        let latest = broker.reader("t", 0, Start::Timestamp(NOW + DAY_MS), Isolation::ReadCommitted);
        assert_eq!(latest.unwrap().position(), 60);
    }
}

#[tokio::test]
async fn segments_are_closed_by_age_counted_anew() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(NOW)));
    let data = dir.path().join("data");
    let mut broker = open(&clock, options(&dir));
    create(&broker, &[("segment.ms", "3600000")]).await;
    let minute = Duration::from_mins(1);
    let mut expected = 1;
    for round in 0..3 {
        broker.append("t", 0, batch(&["begun"])).await.unwrap();
        assert_eq!(segments(&broker, &data), expected, "round {round}");
        clock.set_wall_clock(NOW - (round + 1) * DAY_MS);
        if round == 1 {
            // What is stored says that it was begun tomorrow.
            broker.close().await.unwrap();
            broker = open(&clock, options(&dir));
        }
        broker.append("t", 0, batch(&["set back"])).await.unwrap();
        clock.advance(HOUR.checked_sub(minute).unwrap());
        broker.append("t", 0, batch(&["young"])).await.unwrap();
        assert_eq!(segments(&broker, &data), expected, "round {round}");
        // An hour after it was set back, not a day.
        clock.advance(minute);
        broker.append("t", 0, batch(&["next"])).await.unwrap();
        expected += 1;
        assert_eq!(segments(&broker, &data), expected, "round {round}");
    }
    assert_eq!(read(&broker, "t", 0, Isolation::ReadCommitted).len(), 12);
}

#[tokio::test]
async fn producers_offsets_and_transactions_do_not_expire_early() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(NOW)));
    let options = BrokerOptions {
        producer_id_expiration: HOUR,
        offsets_retention: Some(HOUR),
        ..options(&dir)
    };
    let broker = open(&clock, options.clone());
    create(&broker, &[]).await;
    let send = |broker: &Broker, base_sequence| {
        let (broker, sequence) = (
            broker.clone(),
            Sequence {
                producer_id: 5_000,
                epoch: 0,
                base_sequence,
            },
        );
        async move { broker.append_with_sequence("t", 0, batch(&["x"]), sequence).await }
    };
    let committed = |broker: &Broker| broker.group_offsets("g").len();
    send(&broker, 0).await.unwrap();
    broker.commit_group_offsets("g", &[("t", 0, 1)]).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["y"])).await.unwrap();

    for back in [DAY_MS, 40 * DAY_MS] {
        clock.set_wall_clock(NOW - back);
        broker.run_housekeeping_now();
        assert!(send(&broker, 0).await.unwrap().duplicate);
        broker.commit_group_offsets("h", &[("t", 0, 1)]).await.unwrap();
        assert_eq!(committed(&broker), 1);
        // Less than the wait has passed, whatever the clock on the wall says.
        transaction.append("t", 0, batch(&["y"])).await.unwrap();
    }
    // What is written now is as old as the clock says now.
    send(&broker, 1).await.unwrap();
    broker.commit_group_offsets("g", &[("t", 0, 2)]).await.unwrap();
    transaction.commit().await.unwrap();
    clock.advance(Duration::from_mins(59));
    broker.run_housekeeping_now();
    broker.commit_group_offsets("h", &[("t", 0, 1)]).await.unwrap();
    assert!(send(&broker, 1).await.unwrap().duplicate);
    assert_eq!(committed(&broker), 1);
    drop(producer);
    broker.close().await.unwrap();
    drop(broker);

    let broker = open(&clock, options);
    assert!(broker.recovery().is_clean());
    // They are kept for as long after the broker was opened.
    clock.advance(HOUR + Duration::from_mins(2));
    broker.run_housekeeping_now();
    // The records that delete them are before this one.
    broker.commit_group_offsets("h", &[("t", 0, 1)]).await.unwrap();
    assert_eq!(
        committed(&broker),
        0,
        "nor does it take until the old time comes again"
    );
    // Forgotten: any number may follow.
    let sent = send(&broker, 77).await;
    assert!(!matches!(sent, Err(Error::OutOfOrderSequence { .. })), "{sent:?}");
    assert_eq!(read(&broker, "t", 0, Isolation::ReadCommitted).len(), 6);
}
