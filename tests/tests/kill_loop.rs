//! `kill -9` of the daemon, again and again under a write load: nothing is lost, doubled, invented or put out of order
//! (invariants 1 to 5, 9 and 10).
//!
//! `KILLS=200` makes it longer; choices differ from run to run, `SEED=n` repeats them (their interleaving is never the same).

use std::time::Duration;

use tidewater_tests::Result;
use tidewater_tests::books::Coverage;
use tidewater_tests::settle::QUIET;
use tidewater_tests::shop::{self, DATABASE, WriterOptions, Writers};
use tidewater_tests::stand::{Stand, check_ledgers};

/// A number from the environment.
fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn databases_are_equal_and_the_books_balance_after_many_kills() -> Result<()> {
    survives(Stand::set_up(0.1).await?).await
}

/// The same with records as the sample files have them.
#[tokio::test]
async fn typed_records_survive_as_well() -> Result<()> {
    survives(Stand::with_converter(0.1, "typed").await?).await
}

/// 10,000 rows created and 5,000 of them changed again, one of them in its key.
const LARGE: &str = "BEGIN;
    INSERT INTO shop.payments (id, amount, method, paid_at)
        SELECT gen_random_uuid(), i, 'large', clock_timestamp() FROM generate_series(1, 10000) i;
    UPDATE shop.payments SET method = 'larger' WHERE method = 'large' AND amount <= 5000;
    UPDATE shop.payments SET id = gen_random_uuid() WHERE method = 'larger' AND amount = 5000;
    COMMIT";

async fn survives(mut stand: Stand) -> Result<()> {
    let snapshot_rows = shop::rows(&stand.source).await?;
    let mut daemon = stand.start()?;
    stand.equal(&daemon).await?;

    let kills = from_env("KILLS").unwrap_or(24);
    let seed = from_env("SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SEED={seed}");
    // Transactions of 1 to 10,000 rows, keys that change, some rolled back in whole or to a savepoint.
    let options = WriterOptions {
        writers: 3,
        seed,
        max_bulk_rows: 10_000,
        pause: Duration::from_millis(15),
    };
    let writers = Writers::start(&stand.source, &options).await?;
    let mut rng = fastrand::Rng::with_seed(seed);
    for kill in 0..kills {
        if kill % 8 == 3 {
            // A large transaction is surely on its way when the next kill comes.
            stand.source.execute(DATABASE, LARGE).await?;
        }
        if kill % 6 == 5 {
            // In the midst of starting and recovering: after some lines of its log.
            let lines = daemon.lines_logged() + rng.usize(0..4);
            let mut seen = 0;
            daemon
                .wait_for("a line of the log", |_| {
                    seen += 1;
                    seen > lines
                })
                .await
                .ok();
        } else {
            // In the midst of work: after some of it has arrived.
            for _ in 0..rng.u32(1..25) {
                assert!(
                    stand.arrivals.next(QUIET).await?,
                    "kill {kill}: nothing arrives\n{}",
                    daemon.log_tail()
                );
            }
        }
        assert!(
            daemon.is_alive(),
            "kill {kill}: the daemon ended by itself\n{}",
            daemon.log_tail()
        );
        daemon.kill_now();
        daemon = stand.start()?;
    }
    let totals = writers.finish().await?;
    assert!(totals.rolled_back > 0, "{totals:?}");
    stand.equal(&daemon).await?;
    stand.file_complete(&daemon, snapshot_rows).await?;

    daemon.stop().await?;
    let changes = shop::changes(&stand.source).await?;
    assert!(
        changes.creates > 1000 && changes.updates > 100 && changes.deletes > 100,
        "{changes:?}"
    );
    let found = stand.balance(Coverage::Everything).await?;
    assert_eq!(
        (found.snapshot, found.changes, found.tombstones),
        (snapshot_rows, changes.events(), changes.deletes)
    );
    check_ledgers(&daemon, &["shop-source", "shop-mirror", "shop-lines"])?;
    println!(
        "{kills} kills; {} transactions committed and {} rolled back; {} changes and {} tombstones, each once",
        totals.committed, totals.rolled_back, found.changes, found.tombstones
    );
    Ok(())
}

/// A kill in mid-snapshot leaves nothing half done: the next start finishes the job.
#[tokio::test]
async fn a_snapshot_that_is_killed_is_finished_by_the_next_start() -> Result<()> {
    let mut stand = Stand::set_up(0.2).await?;
    let mut daemon = stand.start()?;
    for kill in 0..3 {
        for _ in 0..=kill {
            assert!(
                stand.arrivals.next(QUIET).await?,
                "nothing arrives\n{}",
                daemon.log_tail()
            );
        }
        daemon.kill_now();
        daemon = stand.start()?;
    }
    stand.equal(&daemon).await?;
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(
        stand.source.value("shop", slots).await?.as_deref(),
        Some("1"),
        "no slot is left behind"
    );
    daemon.stop().await
}
