//! The schedule of restarts, on a clock that stands still but for what is waited for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::error::Error;
use crate::restart_policy::RestartMode;

/// States in the order told, each with the time since the beginning.
struct Diary {
    begun: Instant,
    generation: AtomicU32,
    told: Mutex<Vec<(Duration, Standing)>>,
    /// Beginnings that fail, as with a log that cannot be written.
    unwritable: AtomicU32,
}

impl Diary {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            generation: AtomicU32::new(0),
            told: Mutex::default(),
            unwritable: AtomicU32::new(0),
        })
    }

    fn states(&self) -> Vec<State> {
        self.told
            .lock()
            .iter()
            .map(|(_, standing)| standing.state)
            .collect()
    }

    fn last(&self) -> (Duration, Standing) {
        self.told.lock().last().cloned().expect("something has been told")
    }
}

#[async_trait]
impl Witness for Diary {
    async fn begin(&self, standing: Standing) -> Result<u64> {
        if self
            .unwritable
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            return Err(Error::State("the disk is full".into()));
        }
        self.told.lock().push((self.begun.elapsed(), standing));
        Ok(u64::from(self.generation.fetch_add(1, Ordering::SeqCst)) + 1)
    }

    async fn tell(&self, standing: Standing, _generation: u64) -> Result<()> {
        self.told.lock().push((self.begun.elapsed(), standing));
        Ok(())
    }
}

fn policy() -> RestartPolicy {
    RestartPolicy {
        mode: RestartMode::OnFailure,
        max_attempts: None,
        window: Duration::from_mins(10),
        first_delay: Duration::from_millis(300),
        max_delay: Duration::from_mins(1),
    }
}

fn supervision(
    diary: &Arc<Diary>,
    policy: RestartPolicy,
) -> (Supervision<Diary>, watch::Sender<RestartPolicy>) {
    let (change, policy) = watch::channel(policy);
    let supervision = Supervision {
        witness: diary.clone(),
        noun: "task",
        policy,
        redactor: Redactor::default(),
        stop: CancellationToken::new(),
    };
    (supervision, change)
}

#[tokio::test(start_paused = true)]
async fn pauses_double_between_lives_and_each_is_told_beforehand() {
    let diary = Diary::new();
    let (supervision, _policy) = supervision(&diary, policy());
    let lives = Mutex::new(Vec::new());
    let ended = supervision
        .run(|life| {
            let (lives, stop) = (&lives, &supervision.stop);
            async move {
                lives.lock().push((diary_time(), life.generation));
                if life.generation == 7 {
                    stop.cancel();
                    return Ok(());
                }
                Err(Error::State(format!("life {} failed", life.generation)))
            }
        })
        .await;
    assert_eq!(ended, Ended::Stopped);
    let lives = lives.into_inner();
    assert_eq!(
        lives
            .iter()
            .map(|(_, generation)| *generation)
            .collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7]
    );
    for (number, pair) in lives.windows(2).enumerate() {
        let pause = pair[1].0 - pair[0].0;
        let full = Duration::from_millis(300 << number);
        assert!(
            pause >= full / 2 && pause <= full + Duration::from_millis(2),
            "{pause:?} after life {number}"
        );
    }
    let told = diary.told.lock();
    for (at, standing) in told
        .iter()
        .filter(|(_, standing)| standing.state == State::Restarting)
    {
        assert!(
            standing.next_attempt.is_some() && standing.trace.is_some(),
            "{at:?}"
        );
        assert_eq!(standing.causes.len(), standing.retries as usize);
    }
}

/// Now, on the paused clock.
fn diary_time() -> Instant {
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_failed_with_every_cause() {
    let diary = Diary::new();
    let (supervision, _policy) = supervision(
        &diary,
        RestartPolicy {
            max_attempts: Some(3),
            ..policy()
        },
    );
    let ended = supervision
        .run(|life| async move { Err(Error::State(format!("life {} failed", life.generation))) })
        .await;
    assert_eq!(ended, Ended::GaveUp);
    let (_, last) = diary.last();
    assert_eq!(last.state, State::Failed);
    assert_eq!(last.retries, 4);
    assert_eq!(last.trace.as_deref(), Some("life 4 failed"));
    assert!(
        last.reason
            .as_deref()
            .is_some_and(|reason| reason.contains("restart.max.attempts"))
    );
    let causes: Vec<_> = last.causes.iter().map(|cause| cause.message.as_str()).collect();
    assert_eq!(
        causes,
        ["life 1 failed", "life 2 failed", "life 3 failed", "life 4 failed"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_pause_at_once() {
    let diary = Diary::new();
    let (supervision, _policy) = supervision(
        &diary,
        RestartPolicy {
            first_delay: Duration::from_hours(1),
            max_delay: Duration::from_hours(1),
            ..policy()
        },
    );
    let stop = supervision.stop.clone();
    let waiting = supervision.run(|_| async { Err(Error::State("no".into())) });
    let stopped = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
    };
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(waiting, stopped);
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(diary.states(), [State::Unassigned, State::Restarting]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_changes_counts_from_the_next_failure_on() {
    let diary = Diary::new();
    let (supervision, change) = supervision(&diary, policy());
    let ended = supervision
        .run(|life| {
            let change = &change;
            async move {
                if life.generation == 3 {
                    change.send_modify(|policy| policy.mode = RestartMode::Never);
                }
                Err(Error::State("no".into()))
            }
        })
        .await;
    assert_eq!(ended, Ended::GaveUp);
    let (_, last) = diary.last();
    assert_eq!(last.reason.as_deref(), Some("restart.policy is never"));
    assert_eq!((last.causes.len(), last.causes[0].times), (1, 3), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written_is_a_failure_like_others() {
    let diary = Diary::new();
    diary.unwritable.store(2, Ordering::SeqCst);
    let (supervision, _policy) = supervision(&diary, policy());
    let ended = supervision
        .run(|life| {
            let retries = life.standing(State::Running).retries;
            assert_eq!((life.generation, retries), (1, 2));
            async { Ok(()) }
        })
        .await;
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(
        diary.states(),
        [State::Restarting, State::Restarting, State::Unassigned]
    );
}
