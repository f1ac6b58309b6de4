//! The core of appending, syncing, acknowledging and waiting under many interleavings of its threads and tasks.
//!
//! The files of the core take their locks and atomics from `crate::sync`. They are compiled here a second time, where
//! [`sync`] has shuttle's types, which hand over to another thread at every step the scheduler chooses: a run that
//! blocks for good is a lost wake-up, and is reported with the schedule that led to it.

#![allow(clippy::unwrap_used, reason = "a failure here is the message")]

#[expect(dead_code, reason = "not all of the core is used here")]
mod log;
mod model;
mod sync;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use self::log::ready_queue::{Member, ReadyQueue, Subscriber};
use self::log::visibility::Visibility;
use self::model::{Disk, Log};

/// Runs `test` under random schedules, and under ones with few, well-placed switches.
fn explore(test: impl Fn() + Copy + Send + Sync + 'static) {
    shuttle::check_random(test, 1_500);
    shuttle::check_pct(test, 1_500, 3);
}

/// Polls once, and drops the future if it is not done.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Sees everything up to `until`, in order, giving up waiting now and then.
async fn follow(log: &Log, until: u64) {
    let mut last = 0;
    loop {
        let (seen, version) = log.visible.look();
        assert!(
            last <= seen.high,
            "the high watermark went back from {last} to {}",
            seen.high
        );
        last = seen.high;
        if seen.stopped || last >= until {
            return;
        }
        if thread_rng().gen_bool(0.3) {
            poll_once(log.visible.changed(version)).await;
        } else {
            log.visible.changed(version).await;
        }
    }
}

#[test]
fn what_is_appended_is_acknowledged_once_and_seen() {
    explore(|| {
        let disk = Disk::new(2, 1 << 20);
        let log = Log::new(&disk, false);
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let log = Arc::clone(&log);
                thread::spawn(move || {
                    shuttle::future::block_on(async {
                        for _ in 0..2 {
                            let end = log.append(1).await.unwrap();
                            log.acknowledged(end).await.unwrap();
                            assert!(log.durable() >= end, "acknowledged, and not on disk");
                            assert!(log.visible.now().high >= end, "acknowledged, and not visible");
                        }
                    });
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let log = Arc::clone(&log);
                thread::spawn(move || shuttle::future::block_on(follow(&log, 4)))
            })
            .collect();
        for thread in writers.into_iter().chain(readers) {
            thread.join().unwrap();
        }
        disk.stop();
        disk.check_budget();
    });
}

#[test]
fn a_waiter_that_goes_takes_nothing_with_it() {
    explore(|| {
        let disk = Disk::new(1, 1 << 20);
        let log = Log::new(&disk, false);
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                shuttle::future::block_on(async {
                    for i in 0..4 {
                        let end = log.append(1).await.unwrap();
                        if i % 2 == 0 {
                            poll_once(log.acknowledged(end)).await;
                        } else {
                            log.acknowledged(end).await.unwrap();
                        }
                    }
                });
            })
        };
        let quitter = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                shuttle::future::block_on(async {
                    for _ in 0..4 {
                        let (_, version) = log.visible.look();
                        poll_once(log.visible.changed(version)).await;
                    }
                });
            })
        };
        shuttle::future::block_on(follow(&log, 4));
        writer.join().unwrap();
        quitter.join().unwrap();
        disk.stop();
    });
}

#[test]
fn a_log_that_fails_tells_everybody_once() {
    explore(|| {
        let disk = Disk::new(2, 1 << 20);
        let log = Log::new(&disk, false);
        disk.fail_sync(thread_rng().gen_range(0..3));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let log = Arc::clone(&log);
                thread::spawn(move || {
                    shuttle::future::block_on(async {
                        for _ in 0..2 {
                            let Some(end) = log.append(1).await else { return };
                            if log.acknowledged(end).await.is_err() {
                                assert!(log.append(1).await.is_none(), "a failed log takes no writes");
                                return;
                            }
                            assert!(log.durable() >= end);
                        }
                    });
                })
            })
            .collect();
        shuttle::future::block_on(follow(&log, 4));
        for writer in writers {
            writer.join().unwrap();
        }
        disk.stop();
        disk.check_budget();
    });
}

#[test]
fn deleting_a_log_wakes_whoever_waits() {
    explore(|| {
        let disk = Disk::new(1, 1 << 20);
        let log = Log::new(&disk, false);
        let reader = {
            let log = Arc::clone(&log);
            thread::spawn(move || shuttle::future::block_on(follow(&log, u64::MAX)))
        };
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                shuttle::future::block_on(async {
                    while let Some(end) = log.append(1).await {
                        if log.acknowledged(end).await.is_err() || end > 3 {
                            return;
                        }
                    }
                });
            })
        };
        log.delete();
        reader.join().unwrap();
        writer.join().unwrap();
        disk.stop();
        disk.check_budget();
    });
}

#[test]
fn writers_over_the_budget_wait_and_go_on() {
    explore(|| {
        // Each batch takes most of it, and nobody asks for a sync: whoever waits must have those before it synced.
        let disk = Disk::new(1, 3);
        let logs = [Log::new(&disk, false), Log::new(&disk, false)];
        let writers: Vec<_> = (0..3)
            .map(|i| {
                let (disk, log) = (Arc::clone(&disk), Arc::clone(&logs[i % 2]));
                thread::spawn(move || {
                    shuttle::future::block_on(async {
                        for _ in 0..2 {
                            if thread_rng().gen_bool(0.3) {
                                poll_once(disk.reserve(2)).await;
                            }
                            log.append(2).await.unwrap();
                            assert!(disk.held() <= 3, "more in flight than the cap");
                        }
                    });
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        for log in &logs {
            shuttle::future::block_on(async { log.acknowledged(log.end()).await.unwrap() });
        }
        disk.stop();
        disk.check_budget();
    });
}

#[test]
fn a_change_of_durability_acknowledges_nothing_too_early() {
    explore(|| {
        let disk = Disk::new(1, 1 << 20);
        let log = Log::new(&disk, true);
        let writer = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                shuttle::future::block_on(async {
                    for _ in 0..3 {
                        // Either rule holds for a batch written while it changes; once it has changed, the new one.
                        let strict = log.is_strict();
                        let end = log.append(1).await.unwrap();
                        log.acknowledged(end).await.unwrap();
                        assert!(log.visible.now().high >= end);
                        assert!(
                            !strict || log.durable() >= end,
                            "acknowledged before it was on disk"
                        );
                    }
                });
            })
        };
        let reader = {
            let log = Arc::clone(&log);
            thread::spawn(move || shuttle::future::block_on(follow(&log, 3)))
        };
        shuttle::future::block_on(log.make_strict());
        writer.join().unwrap();
        reader.join().unwrap();
        disk.stop();
    });
}

#[test]
fn one_task_waits_for_many_logs_and_misses_none() {
    explore(|| {
        let values: Vec<_> = (0..3).map(|_| Arc::new(Visibility::new(0_u64))).collect();
        let publishers: Vec<_> = (0..2)
            .map(|part| {
                let values = values.clone();
                thread::spawn(move || {
                    for value in 1..=2 {
                        for one in values.iter().skip(part).step_by(2) {
                            drop(one.publish(value));
                        }
                    }
                })
            })
            .collect();
        let queue = Arc::new(ReadyQueue::default());
        let members: Vec<_> = (0..3).map(Member::new).collect();
        shuttle::future::block_on(async {
            let mut seen = [0; 3];
            for (value, member) in values.iter().zip(&members) {
                value.subscribe(Subscriber::new(Arc::clone(&queue), Arc::clone(member)));
                // As a set does: what was there before is looked at once.
                assert!(queue.push(member).is_none(), "nobody waits yet");
            }
            while seen != [2; 3] {
                let next = poll_fn(|context| queue.poll_pop(context));
                let token = if thread_rng().gen_bool(0.3) {
                    let Some(token) = poll_once(next).await else {
                        continue;
                    };
                    token
                } else {
                    next.await
                };
                let now = values[token as usize].now();
                assert!(seen[token as usize] <= now);
                seen[token as usize] = now;
            }
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let left = || shuttle::future::block_on(poll_once(poll_fn(|context| queue.poll_pop(context))));
        while left().is_some() {}
        for (value, member) in values.iter().zip(&members) {
            value.unsubscribe(member);
            drop(value.publish(3));
        }
        assert_eq!(left(), None, "who has unsubscribed hears nothing");
    });
}
