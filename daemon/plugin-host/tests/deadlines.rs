//! Calls that are not answered in time: the plugin's instance is given up, and nobody waits for it any longer.

mod support;

use std::time::Duration;

use support::{frame, in_time, load};
use tidewater_plugin_api::ErrorKind;

const LIMIT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_call_that_hangs_fails_in_time_and_no_other_is_made() {
    let loaded = load(&["puppet"]);
    let sink = loaded
        .sink(&[("at", "put"), ("do", "hang")])
        .with_call_timeout(LIMIT);
    in_time(sink.start()).await.expect("it starts");
    let error = in_time(sink.put(frame(1, 1))).await.expect_err("it hangs");
    assert_eq!(error.kind, ErrorKind::Abandoned);
    assert!(
        error.message.contains("put") && error.message.contains("task.call.timeout.ms"),
        "{error}"
    );
    let error = in_time(sink.flush()).await.expect_err("it is not asked any more");
    assert_eq!(error.kind, ErrorKind::Abandoned);
    // Its future was dropped, so its thread is free, and the instance ends as it should.
    in_time(sink.stop(Duration::from_secs(10)))
        .await
        .expect("it ends");
    assert_eq!(loaded.counted("dropped_futures"), 1);
    assert_eq!(loaded.registry.abandoned(), 0);
}

#[tokio::test]
async fn a_poll_may_wait_for_the_outside_for_longer_than_a_call_may_take() {
    let loaded = load(&["puppet"]);
    let source = loaded.source(&[("polls", "0")]).with_call_timeout(LIMIT);
    in_time(source.start()).await.expect("it starts");
    tokio::select! {
        polled = source.poll() => panic!("there is nothing to read: {polled:?}"),
        // It is polled anew after each sign of life.
        () = loaded.until("polls", 4) => {}
    }
    in_time(source.stop(Duration::from_secs(10)))
        .await
        .expect("it ends");
}

#[tokio::test]
async fn a_poll_that_blocks_its_thread_is_found_out() {
    let loaded = load(&["puppet"]);
    let barrier = loaded.barrier();
    let file = barrier.to_str().expect("it is UTF-8");
    let orders = [("at", "poll"), ("do", "block"), ("block.file", file)];
    let source = loaded.source(&orders).with_call_timeout(LIMIT);
    in_time(source.start()).await.expect("it starts");
    let error = in_time(source.poll()).await.expect_err("its thread is blocked");
    assert_eq!(error.kind, ErrorKind::Abandoned);
    let left = in_time(source.stop(Duration::from_millis(100))).await;
    assert_eq!(left.expect_err("it is left behind").kind, ErrorKind::Abandoned);
    assert_eq!(loaded.registry.abandoned(), 1);
    std::fs::remove_file(barrier).expect("the thread may go");
}
