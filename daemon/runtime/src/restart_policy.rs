//! When what failed is started again, and when no more: `restart.policy`, its back-off and its budget.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::state_topic::unix_millis;
use crate::status::Cause;

/// A life that lasted this long was a success: the next failure starts the back-off anew.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// Causes that are kept; older ones are forgotten (invariant 6).
const MOST_CAUSES: usize = 20;
/// Characters of a cause that are kept in the history; the last one stands in full as the trace.
const LONGEST_CAUSE: usize = 1000;

/// Whether to restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartMode {
    /// What fails stays FAILED until somebody restarts it, as in Kafka Connect.
    Never,
    /// What fails is restarted.
    OnFailure,
}

/// `restart.*` of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Whether to restart at all.
    pub mode: RestartMode,
    /// The most restarts within `window`; none for as many as it takes.
    pub max_attempts: Option<u32>,
    /// The time that the budget is for.
    pub window: Duration,
    /// The first pause before a restart.
    pub first_delay: Duration,
    /// The longest.
    pub max_delay: Duration,
}

impl RestartPolicy {
    /// A back-off as the policy says.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(self.first_delay, self.max_delay)
    }
}

/// What comes after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A restart, so long from now.
    Restart(Duration),
    /// Nothing, and why.
    GiveUp(String),
}

/// The failures of one connector or task since somebody started it.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// When there were restarts, within the window.
    restarts: VecDeque<Instant>,
    backoff: Option<Backoff>,
    in_a_row: u32,
    causes: VecDeque<Cause>,
}

impl Failures {
    /// Takes note of a failure after a life that lasted `lived`, and says what comes next. Fenced is fenced: another
    /// instance has taken over, and a restart would take over in its turn (invariant 9).
    pub fn note(&mut self, text: &str, lived: Duration, fenced: bool, policy: &RestartPolicy) -> Next {
        if lived >= STABLE_AFTER {
            self.in_a_row = 0;
            self.backoff = None;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.remember(text);
        if fenced {
            return Next::GiveUp("another instance has taken over; stop one of the two".to_owned());
        }
        if policy.mode == RestartMode::Never {
            return Next::GiveUp("restart.policy is never".to_owned());
        }
        let now = Instant::now();
        while self
            .restarts
            .front()
            .is_some_and(|&at| now.duration_since(at) > policy.window)
        {
            self.restarts.pop_front();
        }
        if let Some(most) = policy.max_attempts
            && self.restarts.len() >= most as usize
        {
            return Next::GiveUp(format!(
                "restarted {} times within restart.window.ms ({} ms), which restart.max.attempts allows",
                self.restarts.len(),
                policy.window.as_millis()
            ));
        }
        // Without a budget nobody asks how many there were.
        if policy.max_attempts.is_some() {
            self.restarts.push_back(now);
        }
        Next::Restart(self.backoff.get_or_insert_with(|| policy.backoff()).next_delay())
    }

    fn remember(&mut self, text: &str) {
        let mut message: String = text.chars().take(LONGEST_CAUSE).collect();
        if message.len() < text.len() {
            message.push('…');
        }
        let at = unix_millis();
        // The same again and again is one cause with a count, so that it cannot drive out the first one.
        match self.causes.back_mut() {
            Some(last) if last.message == message => {
                last.times += 1;
                last.at = at;
            }
            _ => self.causes.push_back(Cause {
                at,
                message,
                times: 1,
            }),
        }
        if self.causes.len() > MOST_CAUSES {
            // The first cause tells how it began.
            self.causes.remove(1);
        }
    }

    /// Failures since the last life that lasted.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Why it failed, the oldest first.
    pub fn causes(&self) -> Vec<Cause> {
        self.causes.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_attempts: Option<u32>) -> RestartPolicy {
        RestartPolicy {
            mode: RestartMode::OnFailure,
            max_attempts,
            window: Duration::from_mins(1),
            first_delay: Duration::from_millis(300),
            max_delay: Duration::from_secs(2),
        }
    }

    fn fails(failures: &mut Failures, policy: &RestartPolicy) -> Next {
        failures.note("no route", Duration::ZERO, false, policy)
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_counts_restarts_within_its_window() {
        let (policy, mut failures) = (policy(Some(3)), Failures::default());
        for _ in 0..3 {
            assert!(matches!(fails(&mut failures, &policy), Next::Restart(_)));
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        let Next::GiveUp(why) = fails(&mut failures, &policy) else {
            panic!("the budget is spent")
        };
        assert!(why.contains('3') && why.contains("restart.max.attempts"), "{why}");
        // The first of them is out of the window now.
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(matches!(fails(&mut failures, &policy), Next::Restart(_)));
        assert!(matches!(fails(&mut failures, &policy), Next::GiveUp(_)));
        assert_eq!(failures.in_a_row(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_it_never_gives_up_and_a_long_life_begins_the_pauses_anew() {
        let (policy, mut failures) = (policy(None), Failures::default());
        for _ in 0..1000 {
            let Next::Restart(pause) = fails(&mut failures, &policy) else {
                panic!("it gave up")
            };
            assert!(pause <= policy.max_delay);
        }
        assert!(failures.restarts.is_empty());
        let next = failures.note("no route", STABLE_AFTER, false, &policy);
        assert!(
            matches!(next, Next::Restart(pause) if pause <= policy.first_delay),
            "{next:?}"
        );
        assert_eq!(failures.in_a_row(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn never_is_never_and_fenced_stays_fenced() {
        let mut never = policy(None);
        never.mode = RestartMode::Never;
        assert!(matches!(fails(&mut Failures::default(), &never), Next::GiveUp(_)));
        let fenced = Failures::default().note("taken over", Duration::ZERO, true, &policy(None));
        assert!(matches!(fenced, Next::GiveUp(why) if why.contains("another instance")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_history_keeps_the_first_cause_and_the_last_ones() {
        let (policy, mut failures) = (policy(None), Failures::default());
        for number in 0..100 {
            let text = format!("cause {number}");
            failures.note(&text, Duration::ZERO, false, &policy);
            failures.note(&text, Duration::ZERO, false, &policy);
        }
        failures.note(&"x".repeat(9000), Duration::ZERO, false, &policy);
        let causes = failures.causes();
        assert_eq!(causes.len(), MOST_CAUSES);
        assert_eq!(
            (causes[0].message.as_str(), causes[0].times),
            ("cause 0", 2),
            "how it began"
        );
        assert_eq!(causes[MOST_CAUSES - 2].message, "cause 99");
        assert!(causes[MOST_CAUSES - 1].message.chars().count() <= LONGEST_CAUSE + 1);
    }
}
