//! Both PostgreSQL servers are stopped, killed and started again under load; the daemon waits and goes on by itself.

use std::time::Duration;

use tidewater_tests::Result;
use tidewater_tests::books::Coverage;
use tidewater_tests::daemon_log::Event;
use tidewater_tests::settle::QUIET;
use tidewater_tests::shop::{self, WriterOptions, Writers};
use tidewater_tests::stand::{Stand, check_ledgers};

#[tokio::test]
async fn the_daemon_outlives_its_servers() -> Result<()> {
    let mut stand = Stand::set_up(0.05).await?;
    let snapshot_rows = shop::rows(&stand.source).await?;
    let mut daemon = stand.start()?;
    stand.equal(&daemon).await?;
    let options = WriterOptions {
        max_bulk_rows: 1000,
        pause: Duration::from_millis(5),
        ..WriterOptions::default()
    };
    let writers = Writers::start(&stand.source, &options).await?;
    for round in 0..4 {
        for _ in 0..5 {
            assert!(
                stand.arrivals.next(QUIET).await?,
                "nothing arrives\n{}",
                daemon.log_tail()
            );
        }
        let seen = daemon.lines_logged();
        match round {
            0 => stand.source.stop().await?,
            1 => stand.target.stop().await?,
            2 => stand.source.kill_now().await?,
            _ => stand.target.kill_now().await?,
        }
        // The daemon has noticed before the server comes back.
        daemon
            .wait_from(seen, "trouble with the server", Event::is_trouble)
            .await?;
        if round % 2 == 0 {
            stand.source.start_again().await?;
        } else {
            stand.target.start_again().await?;
        }
        assert!(daemon.is_alive(), "{}", daemon.log_tail());
    }
    let totals = writers.finish().await?;
    assert!(totals.reconnects > 0, "{totals:?}");
    stand.equal(&daemon).await?;
    stand.file_complete(&daemon, snapshot_rows).await?;
    daemon.stop().await?;
    stand.balance(Coverage::Everything).await?;
    check_ledgers(&daemon, &["shop-source", "shop-mirror", "shop-lines"])?;
    Ok(())
}
