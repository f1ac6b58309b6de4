//! One group: who its members are, and which partitions each may read. A pure state machine: it is told the time and
//! what happens, and does nothing by itself.
//!
//! # Protocol
//! Kafka's cooperative rebalance with assignment by the broker (as in KIP-848). Whatever changes the group (a member
//! joins, leaves, is expelled or subscribes to other topics; a topic gains partitions or goes) makes the next
//! *generation* with a *target* for each member. A member moves from what it owns to its target at its own pace, when it
//! polls: first it gives up what is no longer its own, and acknowledges that once it has committed what it wants to;
//! then it takes what is new to it and free. So a partition has one owner at a time: it becomes free only by the
//! acknowledgement of its owner, when that is expelled, or when its topic is deleted.
//!
//! # Fencing
//! A commit names the member and the generation in which the member last took something. It is good if the member still
//! owns the partitions, and has since that generation or before. Being expelled ends all ownership, so that a member that
//! hung and comes back (a *zombie*) cannot commit, and learns it by its next call. So does the deletion of a topic: an
//! offset of one that was deleted is none of the topic created under its name.
//!
//! # Time
//! A member is expelled if it sends no heartbeat for the session time-out; if it neither polls nor is within a poll for
//! the longest poll interval; or if it holds on to a partition to be given up for that long. A call of a member that is
//! merely late counts: it is expelled only when [`Group::tick`] comes first. Time that goes back is taken to stand still.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::group::assignor::{Assignor, Subscriber};
use crate::group::description::{GroupDescription, GroupState, MemberDescription};
use crate::group::subscription::{Subscription, TopicCounts};
use crate::topic_partition::TopicPartition;

pub(crate) mod member;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use member::{Gone, Joining, Member};

/// Members that are gone of which it is remembered why.
const REMEMBERED: usize = 64;

#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    assignor: Assignor,
    generation: i32,
    members: BTreeMap<Arc<str>, Member>,
    /// Who owns a partition, and since which generation.
    owners: HashMap<TopicPartition, (Arc<str>, i32)>,
    /// The partition counts of the subscribed topics, as of this generation.
    counts: TopicCounts,
    /// Why members are gone, the latest last.
    gone: VecDeque<(Arc<str>, Gone)>,
    /// The latest time it was told.
    now: Instant,
}

/// What a member that polls is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    /// What its commits name from now on.
    pub(crate) generation: i32,
    /// To give up, and to acknowledge by [`Group::revoked`].
    pub(crate) revoke: BTreeSet<TopicPartition>,
    /// Its own from now on.
    pub(crate) assign: BTreeSet<TopicPartition>,
    /// Its own no longer, since they were deleted; some of them may be to `assign` again.
    pub(crate) lost: BTreeSet<TopicPartition>,
}

impl Group {
    pub(crate) fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.into(),
            assignor: Assignor::default(),
            generation: 0,
            members: BTreeMap::new(),
            owners: HashMap::new(),
            counts: BTreeMap::new(),
            gone: VecDeque::new(),
            now,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes in a member, which is not within a poll yet. A static member takes the place of the one with its instance
    /// id, which is fenced.
    pub(crate) fn join(&mut self, joining: Joining, counts: &TopicCounts, now: Instant) -> Result<()> {
        let now = self.advance(now);
        let before = joining.instance_id.as_ref().and_then(|instance| {
            let same = |member: &Member| member.instance_id.as_ref() == Some(instance);
            self.members
                .iter()
                .find(|(_, member)| same(member))
                .map(|(id, _)| Arc::clone(id))
        });
        let alone = self.members.len() == usize::from(before.is_some());
        if joining.assignor != self.assignor && !alone {
            return Err(Error::InconsistentAssignor {
                group: self.name.to_string(),
                assignor: joining.assignor,
                current: self.assignor,
            });
        }
        self.assignor = joining.assignor;
        let target = match (before, &joining.instance_id) {
            (Some(id), Some(instance)) => {
                let gone = Gone::Replaced(Arc::clone(instance));
                self.remove(&id, gone).map(|member| member.target)
            }
            _ => None,
        };
        let member = Member {
            client_id: joining.client_id,
            instance_id: joining.instance_id,
            subscription: joining.subscription,
            topics: BTreeSet::new(),
            session_timeout: joining.session_timeout,
            max_poll_interval: joining.max_poll_interval,
            session_deadline: now + joining.session_timeout,
            poll_deadline: Some(now + joining.max_poll_interval),
            revoke_deadline: None,
            owned: BTreeSet::new(),
            target: target.unwrap_or_default(),
            lost: BTreeSet::new(),
            generation: 0,
        };
        self.members.insert(joining.member_id, member);
        self.rebalance(counts);
        Ok(())
    }

    /// Subscribes a member to something else.
    pub(crate) fn subscribe(
        &mut self,
        member: &str,
        subscription: Subscription,
        counts: &TopicCounts,
        now: Instant,
    ) -> Result<()> {
        let now = self.advance(now);
        let subscribed = self.member(member)?;
        subscribed.session_deadline = now + subscribed.session_timeout;
        let changed = subscription.topics(counts) != subscribed.topics;
        subscribed.subscription = subscription;
        if changed {
            self.rebalance(counts);
        }
        Ok(())
    }

    /// A member goes by itself; its partitions are free at once.
    pub(crate) fn leave(&mut self, member: &str, counts: &TopicCounts, now: Instant) {
        self.advance(now);
        if self.remove(member, Gone::Left).is_some() {
            self.rebalance(counts);
        }
    }

    /// A member is alive.
    pub(crate) fn heartbeat(&mut self, member: &str, now: Instant) -> Result<()> {
        let now = self.advance(now);
        let member = self.member(member)?;
        member.session_deadline = now + member.session_timeout;
        Ok(())
    }

    /// A member begins to poll, or looks again within a poll, and is told what to do.
    pub(crate) fn poll(&mut self, member_id: &str, now: Instant) -> Result<Directive> {
        let now = self.advance(now);
        let generation = self.generation;
        let owners = &mut self.owners;
        let id = self
            .members
            .get_key_value(member_id)
            .map(|(id, _)| Arc::clone(id));
        let Some((member, id)) = self.members.get_mut(member_id).zip(id) else {
            return Err(self.unknown(member_id));
        };
        member.session_deadline = now + member.session_timeout;
        member.poll_deadline = None;
        let revoke: BTreeSet<_> = member.owned.difference(&member.target).cloned().collect();
        let mut assign = BTreeSet::new();
        if revoke.is_empty() {
            let free = |part: &&TopicPartition| !owners.contains_key(*part);
            assign = member.target.iter().filter(free).cloned().collect();
            for part in &assign {
                owners.insert(part.clone(), (Arc::clone(&id), generation));
                member.owned.insert(part.clone());
            }
            member.generation = generation;
        }
        Ok(Directive {
            generation: member.generation,
            revoke,
            assign,
            lost: std::mem::take(&mut member.lost),
        })
    }

    /// A poll of a member has ended.
    pub(crate) fn polled(&mut self, member: &str, now: Instant) {
        let now = self.advance(now);
        if let Some(member) = self.members.get_mut(member) {
            member.poll_deadline = Some(now + member.max_poll_interval);
        }
    }

    /// A member has given up partitions. Answers whether that made any free.
    pub(crate) fn revoked(
        &mut self,
        member_id: &str,
        partitions: &BTreeSet<TopicPartition>,
        now: Instant,
    ) -> Result<bool> {
        let now = self.advance(now);
        let Some(member) = self.members.get_mut(member_id) else {
            return Err(self.unknown(member_id));
        };
        let mut freed = false;
        for part in partitions {
            member.lost.remove(part);
            if member.owned.remove(part) {
                self.owners.remove(part);
                freed = true;
            }
        }
        if member.owned.is_subset(&member.target) {
            member.revoke_deadline = None;
        } else if freed {
            // It does give up what it is told to: more has come meanwhile.
            member.revoke_deadline = Some(now + member.max_poll_interval);
        }
        Ok(freed)
    }

    /// Expels those whose time is over. Answers whether there were any.
    pub(crate) fn tick(&mut self, counts: &TopicCounts, now: Instant) -> bool {
        let now = self.advance(now);
        let late: Vec<_> = self
            .members
            .iter()
            .filter_map(|(id, member)| Some((Arc::clone(id), member.fault(now)?)))
            .collect();
        let any = !late.is_empty();
        for (id, reason) in late {
            tracing::warn!(group = %self.name, member = %id, reason, "expelled from the group");
            self.remove(&id, Gone::Late(reason));
        }
        if any {
            self.rebalance(counts);
        }
        any
    }

    /// When [`tick`](Self::tick) may have something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.members.values().map(Member::deadline).min()
    }

    /// Topics were created, deleted, or got partitions. Answers whether that concerns the group.
    pub(crate) fn topics_changed(&mut self, counts: &TopicCounts) -> bool {
        let mut changed = self.count_topics(counts) != self.counts;
        for member in self.members.values_mut() {
            let kept = |part: &TopicPartition| {
                counts
                    .get(&part.topic)
                    .is_some_and(|count| part.partition < *count)
            };
            for part in member.owned.extract_if(.., |part| !kept(part)) {
                self.owners.remove(&part);
                member.lost.insert(part);
                changed = true;
            }
        }
        if changed {
            self.rebalance(counts);
        }
        changed
    }

    /// Whether a member may commit offsets of these partitions under a generation it was told.
    pub(crate) fn check_commit<'a>(
        &self,
        member_id: &str,
        generation: i32,
        partitions: impl Iterator<Item = (&'a str, u32)>,
    ) -> Result<()> {
        let Some(member) = self.members.get(member_id) else {
            return Err(self.unknown(member_id));
        };
        let illegal = |partition: Option<TopicPartition>| {
            Err(Error::IllegalGeneration {
                group: self.name.to_string(),
                member_id: member_id.to_owned(),
                generation,
                current: member.generation,
                partition,
            })
        };
        if generation > member.generation || generation <= 0 {
            return illegal(None);
        }
        for (topic, partition) in partitions {
            let part = TopicPartition::new(topic, partition);
            match self.owners.get(&part) {
                Some((owner, since)) if &**owner == member_id && *since <= generation => {}
                _ => return illegal(Some(part)),
            }
        }
        Ok(())
    }

    pub(crate) fn describe(&self) -> GroupDescription {
        let member = |(id, member): (&Arc<str>, &Member)| MemberDescription {
            member_id: id.to_string(),
            instance_id: member.instance_id.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            pattern: member.subscription.as_pattern().map(str::to_owned),
            topics: member.topics.clone(),
            assignment: member.owned.clone(),
            target: member.target.clone(),
        };
        let settled = self.members.values().all(|member| member.owned == member.target);
        let state = match (self.members.is_empty(), settled) {
            (true, _) => GroupState::Empty,
            (false, true) => GroupState::Stable,
            (false, false) => GroupState::PreparingRebalance,
        };
        GroupDescription {
            group: self.name.to_string(),
            state,
            generation: self.generation,
            assignor: (!self.members.is_empty()).then_some(self.assignor),
            members: self.members.iter().map(member).collect(),
        }
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    fn member(&mut self, id: &str) -> Result<&mut Member> {
        let (name, gone) = (&self.name, &self.gone);
        self.members.get_mut(id).ok_or_else(|| unknown(name, gone, id))
    }

    fn unknown(&self, id: &str) -> Error {
        unknown(&self.name, &self.gone, id)
    }

    /// Removes a member; what it owned is free.
    fn remove(&mut self, id: &str, why: Gone) -> Option<Member> {
        let (id, member) = self.members.remove_entry(id)?;
        for part in &member.owned {
            self.owners.remove(part);
        }
        if self.gone.len() == REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back((id, why));
        Some(member)
    }

    fn count_topics(&self, counts: &TopicCounts) -> TopicCounts {
        let topics = |member: &Member| member.subscription.topics(counts);
        let subscribed: BTreeSet<Arc<str>> = self.members.values().flat_map(topics).collect();
        let count = |topic: Arc<str>| Some((counts.get(&topic).copied()?, topic));
        let counted = subscribed.into_iter().filter_map(count);
        counted.map(|(count, topic)| (topic, count)).collect()
    }

    /// Begins the next generation.
    fn rebalance(&mut self, counts: &TopicCounts) {
        self.generation += 1;
        self.counts = self.count_topics(counts);
        for member in self.members.values_mut() {
            member.topics = member.subscription.topics(counts);
        }
        let mut members: Vec<(&Arc<str>, &mut Member)> = self.members.iter_mut().collect();
        // A static member keeps its place among the others when it comes back under a new id.
        members.sort_by(|a, b| a.1.order(a.0).cmp(b.1.order(b.0)));
        let subscribers: Vec<_> = members
            .iter()
            .map(|(_, member)| Subscriber {
                topics: &member.topics,
                target: &member.target,
                owned: &member.owned,
            })
            .collect();
        let assigned = self.assignor.assign(&self.counts, &subscribers);
        let late = self.now;
        for ((_, member), target) in members.into_iter().zip(assigned) {
            member.target = target;
            if member.owned.is_subset(&member.target) {
                member.revoke_deadline = None;
            } else {
                member
                    .revoke_deadline
                    .get_or_insert(late + member.max_poll_interval);
            }
        }
        debug_assert!(self.is_consistent(), "{self:?}");
    }

    /// What always holds: each partition has at most one owner, and both sides agree who it is.
    fn is_consistent(&self) -> bool {
        let owned: usize = self.members.values().map(|member| member.owned.len()).sum();
        let agrees = |(part, (owner, since)): (&TopicPartition, &(Arc<str>, i32))| {
            *since <= self.generation
                && self
                    .members
                    .get(owner)
                    .is_some_and(|member| member.owned.contains(part))
        };
        owned == self.owners.len() && self.owners.iter().all(agrees)
    }
}

/// The error for a member that is none, with the reason if it is remembered.
fn unknown(group: &str, gone: &VecDeque<(Arc<str>, Gone)>, id: &str) -> Error {
    let known = gone.iter().rev().find(|(gone, _)| &**gone == id);
    let reason = match known.map(|(_, why)| why) {
        Some(Gone::Replaced(instance)) => {
            return Error::FencedInstance {
                group: group.to_owned(),
                instance_id: instance.to_string(),
                member_id: id.to_owned(),
            };
        }
        Some(Gone::Late(reason)) => reason.clone(),
        Some(Gone::Left) => "it left the group".to_owned(),
        None => "it is not known".to_owned(),
    };
    Error::UnknownMember {
        group: group.to_owned(),
        member_id: id.to_owned(),
        reason,
    }
}
