//! What can be told of a group.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::group::assignor::Assignor;
use crate::topic_partition::TopicPartition;

/// Where a group is in its life, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// It has committed offsets and no members.
    Empty,
    /// Some member has partitions to give up or to take.
    PreparingRebalance,
    /// Every member has what it is to have.
    Stable,
    /// There is no such group: no members and no offsets.
    Dead,
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The group.
    pub group: String,
    /// Where it is in its life.
    pub state: GroupState,
    /// The number of the last rebalance; begins anew when the broker is opened.
    pub generation: i32,
    /// How partitions are shared out; `None` without members.
    pub assignor: Option<Assignor>,
    /// The members by id.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// Its id, new each time it joins.
    pub member_id: String,
    /// Its `group.instance.id`, if it is a static member.
    pub instance_id: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// The pattern it subscribes to, if it does so by one.
    pub pattern: Option<String>,
    /// The topics it subscribes to; with a pattern, those that match it.
    pub topics: BTreeSet<Arc<str>>,
    /// The partitions it owns.
    pub assignment: BTreeSet<TopicPartition>,
    /// The partitions it is to own once the rebalance is done.
    pub target: BTreeSet<TopicPartition>,
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupLag {
    /// The committed offset.
    pub committed: u64,
    /// Where readers of committed data end.
    pub end: u64,
    /// Offsets between the two that are still kept. Counts what readers pass over, too: markers, aborted and compacted
    /// records.
    pub lag: u64,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        })
    }
}
