//! What can be set when a consumer is made.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::group::assignor::Assignor;
use crate::reader::{Isolation, Start};

/// Where a consumer begins in a partition for which its group has committed nothing, or whose records it has committed
/// to are not kept any more: Kafka's `auto.offset.reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoOffsetReset {
    /// At the first record kept.
    Earliest,
    /// Behind the last record (the default, as Kafka's). So a consumer misses what is written to a new topic or an added
    /// partition before it gets that.
    #[default]
    Latest,
    /// Nowhere: polling is an error until the consumer is sought.
    None,
}

impl AutoOffsetReset {
    pub(crate) fn start(self) -> Option<Start> {
        match self {
            Self::Earliest => Some(Start::Earliest),
            Self::Latest => Some(Start::Latest),
            Self::None => None,
        }
    }
}

/// Settings of a [`Consumer`](crate::Consumer), by Kafka's names and with its defaults, but for the isolation.
///
/// ```
/// # use tidewater_broker::{AutoOffsetReset, ConsumerOptions};
/// let options = ConsumerOptions {
///     auto_offset_reset: AutoOffsetReset::Earliest,
///     ..ConsumerOptions::new("billing")
/// };
/// assert_eq!(options.session_timeout.as_secs(), 45);
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The group it reads for.
    pub group: String,
    /// What it is called in descriptions of the group.
    pub client_id: String,
    /// Makes it a static member: closed and opened again within the session time-out under the same id, it keeps its
    /// partitions, and nobody else gets them meanwhile. Kafka's `group.instance.id`; default none.
    pub group_instance_id: Option<String>,
    /// Where it begins if nothing is committed.
    pub auto_offset_reset: AutoOffsetReset,
    /// Which records it gets (default those of committed transactions; Kafka's default is all).
    pub isolation: Isolation,
    /// How its group shares out partitions; the same in all members.
    pub assignor: Assignor,
    /// Without a heartbeat for so long it is expelled (default 45 s).
    pub session_timeout: Duration,
    /// How often it sends one (default 3 s).
    pub heartbeat_interval: Duration,
    /// Without a poll for so long it is expelled, and so is a member that does not give up a partition for so long
    /// (default 5 min).
    pub max_poll_interval: Duration,
    /// How often polling commits what was given by polls before (default never: commit by yourself).
    pub auto_commit_interval: Option<Duration>,
}

impl ConsumerOptions {
    /// The defaults, for a consumer of `group`.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            client_id: "consumer".to_owned(),
            group_instance_id: None,
            auto_offset_reset: AutoOffsetReset::default(),
            isolation: Isolation::ReadCommitted,
            assignor: Assignor::default(),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_mins(5),
            auto_commit_interval: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |name, value: String, allowed| Err(Error::InvalidOption { name, value, allowed });
        if self.group.is_empty() || self.group.len() > i16::MAX as usize {
            return invalid("group.id", self.group.clone(), "a name of 1 to 32767 bytes");
        }
        let longest = Duration::from_hours(24 * 365);
        for (name, value) in [
            ("session.timeout.ms", self.session_timeout),
            ("heartbeat.interval.ms", self.heartbeat_interval),
            ("max.poll.interval.ms", self.max_poll_interval),
        ] {
            if value.is_zero() || value > longest {
                return invalid(name, format!("{value:?}"), "a time above zero and up to a year");
            }
        }
        if self.heartbeat_interval >= self.session_timeout {
            let allowed = "a time shorter than session.timeout.ms, a third of it at best";
            return invalid(
                "heartbeat.interval.ms",
                format!("{:?}", self.heartbeat_interval),
                allowed,
            );
        }
        Ok(())
    }
}
