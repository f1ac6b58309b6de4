//! A full disk under the daemon's data: writes wait and say why, the daemon lives, and with room again everything arrives.

use tidewater_tests::Result;
use tidewater_tests::books::Coverage;
use tidewater_tests::built::Built;
use tidewater_tests::daemon_log::Event;
use tidewater_tests::shop;
use tidewater_tests::small_disk::SmallDisk;
use tidewater_tests::stand::{Stand, check_ledgers};

#[tokio::test]
async fn nothing_is_lost_on_a_full_disk() -> Result<()> {
    let mut stand = Stand::set_up(0.3).await?;
    let snapshot_rows = shop::rows(&stand.source).await?;
    // Room for the daemon's copies of the plugins, and a part of the snapshot.
    let built = Built::find()?;
    let plugins: u64 = ["file", "postgres"]
        .iter()
        .map(|name| built.library(name).metadata().expect("a library is there").len())
        .sum();
    let size = format!("{}m", plugins.div_ceil(1 << 20) + 20);
    let disk = SmallDisk::mount(stand.work.join("small"), &size).await?;
    stand.options.data_dir = disk.path().join("data");
    let mut daemon = stand.start()?;

    let told = daemon
        .wait_for("a full disk to be told of", |event: &Event| {
            let words = event.words();
            assert!(!words.contains("refused"), "the plugins have room: {event}");
            event.is_trouble() && (words.contains("full") || words.contains("no space left"))
        })
        .await?;
    let words = told.words();
    assert!(
        words.contains(&disk.path().display().to_string().to_lowercase()),
        "it says where: {told}"
    );
    assert!(daemon.is_alive());

    disk.resize("2g")?;
    stand.equal(&daemon).await?;
    stand
        .source
        .execute("shop", "UPDATE shop.orders SET comment = 'after' WHERE id < 100")
        .await?;
    stand.equal(&daemon).await?;
    stand.file_complete(&daemon, snapshot_rows).await?;
    daemon.stop().await?;
    let totals = stand.balance(Coverage::Everything).await?;
    assert_eq!(totals.snapshot, snapshot_rows);
    check_ledgers(&daemon, &["shop-source", "shop-mirror", "shop-lines"])?;
    Ok(())
}
