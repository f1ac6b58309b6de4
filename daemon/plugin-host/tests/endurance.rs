//! Thousands of lives, of every sort of end: neither memory, nor threads, nor file descriptors, nor operations add up.
//! One test, since it measures its process.

mod support;

use std::fs;
use std::time::Duration;

use support::{Loaded, PATIENCE, frame, in_time, load, until};
use tidewater_plugin_host::operations_in_flight;

/// A field of `/proc/self/status`; sizes are in kB.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .expect("the field is there");
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux tells").count()
}

/// A life: of every sort in turn.
async fn life(loaded: &Loaded, number: usize) {
    match number % 8 {
        // Well behaved.
        0 => {
            let task = loaded.sink(&[]);
            task.start().await.expect("it starts");
            task.put(frame(50, 50)).await.expect("it is put");
            task.flush().await.expect("it is flushed");
            task.stop(PATIENCE).await.expect("it stops");
        }
        1 => {
            let task = loaded.source(&[("records", "20"), ("bytes", "8000")]);
            task.start().await.expect("it starts");
            let polled = task.poll().await.expect("a frame");
            task.commit(polled.positions()).await.expect("it is committed");
            task.stop(PATIENCE).await.expect("it stops");
        }
        // A call is dropped: before it has begun, or in its midst.
        2 => {
            let task = loaded.sink(&[("at", "put"), ("do", "hang")]);
            task.start().await.expect("it starts");
            let patience = Duration::from_micros(fastrand::u64(0..100));
            assert!(
                tokio::time::timeout(patience, task.put(frame(50, 50)))
                    .await
                    .is_err(),
                "it hangs"
            );
            task.stop(PATIENCE).await.expect("it stops");
        }
        // A poll waits as the task is stopped.
        3 => {
            let task = loaded.source(&[("polls", "0")]);
            task.start().await.expect("it starts");
            let (polled, stopped) = tokio::join!(task.poll(), task.stop(PATIENCE));
            polled.expect_err("it was stopped");
            stopped.expect("it stops");
        }
        // Panics.
        4 => {
            let task = loaded.sink(&[("at", "put"), ("do", "panic")]);
            task.start().await.expect("it starts");
            task.put(frame(50, 50)).await.expect_err("told to panic");
            task.stop(PATIENCE).await.expect("it goes quietly");
        }
        5 => {
            let task = loaded.sink(&[("at", "drop"), ("do", "panic")]);
            task.start().await.expect("it starts");
            task.stop(PATIENCE).await.expect_err("told to panic");
        }
        // The handle is dropped, in any state.
        6 => {
            let task = loaded.source(&[]);
            if fastrand::bool() {
                task.start().await.expect("it starts");
            }
        }
        // Never used.
        _ => drop(loaded.sink(&[])),
    }
}

async fn lives(loaded: &Loaded, count: usize) {
    for number in 0..count {
        in_time(life(loaded, number)).await;
    }
    until("every operation is answered", || operations_in_flight() == 0).await;
}

#[tokio::test]
async fn thousands_of_lives_leave_nothing_behind() {
    let loaded = load(&["puppet"]);
    lives(&loaded, 800).await;
    let (threads, open) = (status("Threads"), descriptors());
    until("threads to end", || status("Threads") <= threads).await;
    let before = status("VmRSS");

    lives(&loaded, 4000).await;
    // A thread ends a little after its last answer.
    until("threads to end", || status("Threads") <= threads.min(4)).await;
    let grown = status("VmRSS").saturating_sub(before);
    println!(
        "4,000 lives: {before} kB before, {grown} kB more after; {} threads",
        status("Threads")
    );
    // A kilobyte leaked by each life would be 4,000 kB.
    assert!(grown < 3000, "{before} kB resident before, {grown} kB more after");
    assert!(
        descriptors() <= open,
        "{open} descriptors before, {} after",
        descriptors()
    );
    assert_eq!(loaded.registry.abandoned(), 0);
}
