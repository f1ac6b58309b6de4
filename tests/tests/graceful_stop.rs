//! SIGTERM drains what is under way; the next start goes on where it ended, without a record twice.

use std::time::Duration;

use tidewater_tests::Result;
use tidewater_tests::books::Coverage;
use tidewater_tests::settle::QUIET;
use tidewater_tests::shop::{self, WriterOptions, Writers};
use tidewater_tests::stand::{Stand, check_ledgers};

#[tokio::test]
async fn stops_under_load_are_orderly_and_restarts_repeat_nothing() -> Result<()> {
    let mut stand = Stand::set_up(0.05).await?;
    let snapshot_rows = shop::rows(&stand.source).await?;
    let mut daemon = stand.start()?;
    stand.equal(&daemon).await?;
    let options = WriterOptions {
        max_bulk_rows: 1000,
        pause: Duration::from_millis(10),
        ..WriterOptions::default()
    };
    let writers = Writers::start(&stand.source, &options).await?;
    let (mut from_source, mut from_topics) = (0, 0);
    let mut note = |daemon: &tidewater_tests::daemon::Daemon| -> Result<()> {
        let ledgers = check_ledgers(daemon, &["shop-source", "shop-mirror", "shop-lines"])?;
        let written = |name: &str| {
            ledgers
                .iter()
                .filter(|((of, _), _)| of == name)
                .map(|(_, one)| one.written)
                .sum::<u64>()
        };
        from_source += written("shop-source");
        from_topics += written("shop-lines");
        Ok(())
    };
    for _ in 0..5 {
        // A stop before it has taken the signals over would be the kernel's.
        daemon
            .wait_for("the daemon to run", |event| event.message().ends_with("runs"))
            .await?;
        for _ in 0..8 {
            assert!(
                stand.arrivals.next(QUIET).await?,
                "nothing arrives\n{}",
                daemon.log_tail()
            );
        }
        daemon.stop().await?;
        note(&daemon)?;
        daemon = stand.start()?;
    }
    writers.finish().await?;
    stand.equal(&daemon).await?;
    stand.file_complete(&daemon, snapshot_rows).await?;
    daemon.stop().await?;
    note(&daemon)?;
    let totals = stand.balance(Coverage::Everything).await?;
    // Over all runs each record was written once to its topic and once to the file (invariant 10).
    assert_eq!(from_source, totals.records());
    assert_eq!(from_topics, totals.records());
    Ok(())
}
