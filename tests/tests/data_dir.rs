//! One daemon a data folder: a second one is refused, and the first does not notice.

use tidewater_tests::Result;
use tidewater_tests::bystander::Bystander;
use tidewater_tests::daemon::{Daemon, DaemonOptions};
use tidewater_tests::work_dir::WorkDir;

#[tokio::test]
async fn a_second_daemon_is_refused() -> Result<()> {
    let work = WorkDir::new()?;
    let mut options = DaemonOptions::new(work.join("data"));
    let mut bystander = Bystander::join(&work, &mut options)?;
    let mut first = Daemon::start(&options)?;
    bystander.still_flows(&mut first).await?;

    let mut second = Daemon::start(&options)?;
    let exit = second.ended().await?;
    assert!(!exit.success());
    let said = second.log().join("\n");
    let data = options.data_dir.display().to_string();
    assert!(said.contains(&data), "it names the folder: {said}");
    assert!(
        said.contains(&first.pid().to_string()),
        "it names the process that holds it: {said}"
    );

    bystander.still_flows(&mut first).await?;
    first.stop().await?;
    // The folder is free again.
    let mut third = Daemon::start(&options)?;
    bystander.still_flows(&mut third).await?;
    third.stop().await
}
