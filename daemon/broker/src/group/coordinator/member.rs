//! A member of a group: what it subscribes to, what it owns, by when it must be heard of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::group::assignor::Assignor;
use crate::group::subscription::Subscription;
use crate::topic_partition::TopicPartition;

/// One of the readers of a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) client_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) subscription: Subscription,
    /// What that means among the topics there are, as of this generation.
    pub(crate) topics: BTreeSet<Arc<str>>,
    pub(crate) session_timeout: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) session_deadline: Instant,
    /// By when it must poll; none while it does.
    pub(crate) poll_deadline: Option<Instant>,
    /// By when it must have given up what it owns beyond its target; none if there is nothing.
    pub(crate) revoke_deadline: Option<Instant>,
    pub(crate) owned: BTreeSet<TopicPartition>,
    pub(crate) target: BTreeSet<TopicPartition>,
    /// What it owned when it was deleted, and is to be told of.
    pub(crate) lost: BTreeSet<TopicPartition>,
    /// The generation it was last told of.
    pub(crate) generation: i32,
}

/// Why a member is one no longer.
#[derive(Debug)]
pub(crate) enum Gone {
    Left,
    /// It was expelled.
    Late(String),
    /// Another one has its instance id now.
    Replaced(Arc<str>),
}

/// Who wants to join.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    /// Unique for ever.
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) subscription: Subscription,
    pub(crate) assignor: Assignor,
    pub(crate) session_timeout: Duration,
    pub(crate) max_poll_interval: Duration,
}

impl Member {
    pub(crate) fn order<'a>(&'a self, id: &'a Arc<str>) -> &'a Arc<str> {
        self.instance_id.as_ref().unwrap_or(id)
    }

    pub(crate) fn deadline(&self) -> Instant {
        let others = [self.poll_deadline, self.revoke_deadline];
        others
            .into_iter()
            .flatten()
            .fold(self.session_deadline, Instant::min)
    }

    /// Why it is to be expelled, if it is.
    pub(crate) fn fault(&self, now: Instant) -> Option<String> {
        let over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if over(Some(self.session_deadline)) {
            Some(format!(
                "it sent no heartbeat for {:?} (session.timeout.ms)",
                self.session_timeout
            ))
        } else if over(self.poll_deadline) {
            Some(format!(
                "it did not poll for {:?} (max.poll.interval.ms)",
                self.max_poll_interval
            ))
        } else if over(self.revoke_deadline) {
            Some(format!(
                "it did not give up partitions for {:?} (max.poll.interval.ms)",
                self.max_poll_interval
            ))
        } else {
            None
        }
    }
}
