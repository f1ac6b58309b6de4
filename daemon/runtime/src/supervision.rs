//! One life after another: what fails is started again as the [policy](crate::restart_policy) says, until it is told to
//! stop or the policy gives up.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Redactor;
use crate::error::Result;
use crate::restart_policy::{Failures, Next, RestartPolicy};
use crate::state_topic::unix_millis;
use crate::status::{Standing, State, StatusStore, Subject};

/// Where the state of what is supervised is told.
#[async_trait]
pub trait Witness: Send + Sync {
    /// A life begins; answers its generation.
    async fn begin(&self, standing: Standing) -> Result<u64>;

    /// The life `generation` stands like this now.
    async fn tell(&self, standing: Standing, generation: u64) -> Result<()>;
}

/// Tells the states of one connector or task to the store.
pub struct StatusWitness {
    /// The store.
    pub statuses: Arc<StatusStore>,
    /// Whose states.
    pub subject: Subject,
}

#[async_trait]
impl Witness for StatusWitness {
    async fn begin(&self, standing: Standing) -> Result<u64> {
        self.statuses.begin(&self.subject, standing).await
    }

    async fn tell(&self, standing: Standing, generation: u64) -> Result<()> {
        self.statuses.set(&self.subject, standing, generation).await
    }
}

/// One life.
#[derive(Clone, Debug)]
pub struct Life {
    /// Greater than that of every life before (invariant 9).
    pub generation: u64,
    retries: u32,
    causes: Vec<crate::status::Cause>,
}

impl Life {
    /// A life that nothing has gone before.
    pub fn first(generation: u64) -> Self {
        Self {
            generation,
            retries: 0,
            causes: Vec::new(),
        }
    }

    /// This state, with what has gone before.
    pub fn standing(&self, state: State) -> Standing {
        Standing {
            retries: self.retries,
            causes: self.causes.clone(),
            ..Standing::from(state)
        }
    }
}

/// How the supervision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It gave up; what it supervised has FAILED.
    GaveUp,
}

/// Supervises a connector or a task.
pub struct Supervision<W> {
    /// Where states are told.
    pub witness: Arc<W>,
    /// `connector` or `task`, for the log.
    pub noun: &'static str,
    /// When to restart; a change counts from the next failure on.
    pub policy: watch::Receiver<RestartPolicy>,
    /// Keeps secrets out of states and the log (invariant 8).
    pub redactor: Redactor,
    /// Ends it.
    pub stop: CancellationToken,
}

impl<W: Witness> Supervision<W> {
    /// Runs one `life` after another. One that ends without an error was told to stop.
    pub async fn run<F>(&self, mut life: impl FnMut(Life) -> F) -> Ended
    where
        F: Future<Output = Result<()>>,
    {
        let mut failures = Failures::default();
        let mut last = None;
        while !self.stop.is_cancelled() {
            let begun = Instant::now();
            let (generation, outcome) = match self
                .witness
                .begin(standing(State::Unassigned, &failures, last.clone()))
                .await
            {
                Ok(generation) => {
                    let this = Life {
                        generation,
                        retries: failures.in_a_row(),
                        causes: failures.causes(),
                    };
                    (generation, life(this).await)
                }
                Err(error) => (0, Err(error)),
            };
            let Err(error) = outcome else {
                return Ended::Stopped;
            };
            let text = self.redactor.redact(&error.to_string());
            let noun = self.noun;
            if self.stop.is_cancelled() && !error.is_fenced() {
                tracing::warn!(error = %text, "{noun} did not end cleanly; what was acknowledged is safe");
                return Ended::Stopped;
            }
            let policy = self.policy.borrow().clone();
            let next = failures.note(&text, begun.elapsed(), error.is_fenced(), &policy);
            last = Some(text.clone());
            match next {
                Next::GiveUp(reason) => {
                    tracing::error!(error = %text, "{noun} failed and stays so: {reason}");
                    let mut failed = standing(State::Failed, &failures, last);
                    failed.reason = Some(reason);
                    self.tell(failed, generation).await;
                    return Ended::GaveUp;
                }
                Next::Restart(pause) => {
                    let restart_in_ms = pause.as_millis() as u64;
                    let attempt = failures.in_a_row();
                    tracing::error!(error = %text, attempt, restart_in_ms, "{noun} failed; it will be restarted");
                    let mut waiting = standing(State::Restarting, &failures, last.clone());
                    waiting.next_attempt = Some(unix_millis() + restart_in_ms as i64);
                    let until = Instant::now() + pause;
                    self.tell(waiting, generation).await;
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = self.stop.cancelled() => {}
                    }
                }
            }
        }
        Ended::Stopped
    }

    async fn tell(&self, standing: Standing, generation: u64) {
        if let Err(error) = self.witness.tell(standing, generation).await {
            tracing::warn!(%error, "the state of the {} could not be stored", self.noun);
        }
    }
}

fn standing(state: State, failures: &Failures, trace: Option<String>) -> Standing {
    Standing {
        trace,
        retries: failures.in_a_row(),
        causes: failures.causes(),
        ..Standing::from(state)
    }
}

#[cfg(test)]
mod tests;
