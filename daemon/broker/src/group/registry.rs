//! All groups of a broker: the state machines behind one lock, the time-outs, and who is woken when something changes.
//!
//! Locks are taken in the order producer, registry, table of offsets, log; so a commit is checked, and appended, while
//! nobody can be expelled, join, or reset the offsets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::group::coordinator::member::Joining;
use crate::group::coordinator::{Directive, Group};
use crate::group::description::{GroupDescription, GroupState};
use crate::group::group_metadata::ConsumerGroupMetadata;
use crate::group::offset_record::OffsetCommit;
use crate::group::subscription::{Subscription, TopicCounts};
use crate::housekeeping::Keeper;
use crate::topic_partition::TopicPartition;

pub(crate) struct Registry {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    keeper: Arc<Keeper>,
    /// Notified when the broker closes.
    closing: Notify,
    /// For the tasks of the keeper, which do not keep the registry.
    me: Weak<Registry>,
}

#[derive(Default)]
pub(crate) struct State {
    groups: HashMap<Arc<str>, Entry>,
    /// When groups lost their last member, in milliseconds since 1970; `None` if offsets never expire.
    emptied: Option<HashMap<Arc<str>, i64>>,
    /// The partition counts of all topics.
    topics: TopicCounts,
    /// When the keeper looks for members that are late.
    check_at: Option<Instant>,
}

/// A group with members.
struct Entry {
    group: Group,
    /// Wakes all members, to look what they are to do.
    changed: Arc<Notify>,
}

impl Registry {
    pub(crate) fn new(
        topics: TopicCounts,
        offsets_expire: bool,
        clock: Arc<dyn Clock>,
        keeper: Arc<Keeper>,
    ) -> Arc<Self> {
        let state = State {
            topics,
            emptied: offsets_expire.then(HashMap::new),
            ..State::default()
        };
        Arc::new_cyclic(|me| Self {
            state: Mutex::new(state),
            clock,
            keeper,
            closing: Notify::new(),
            me: me.clone(),
        })
    }

    /// Takes in a member. The notification is that something changed for the members of the group.
    pub(crate) fn join(&self, group: &str, joining: Joining) -> Result<Arc<Notify>> {
        let now = self.clock.monotonic();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let entry = state.groups.entry(group.into()).or_insert_with(|| Entry {
            group: Group::new(group, now),
            changed: Arc::default(),
        });
        entry.group.join(joining, &state.topics, now)?;
        let changed = Arc::clone(&entry.changed);
        if let Some(emptied) = &mut state.emptied {
            emptied.remove(group);
        }
        self.watch(state);
        drop(guard);
        changed.notify_waiters();
        Ok(changed)
    }

    pub(crate) fn subscribe(&self, group: &str, member: &str, subscription: Subscription) -> Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let entry = state.groups.get_mut(group).ok_or_else(|| gone(group, member))?;
        let now = self.clock.monotonic();
        entry.group.subscribe(member, subscription, &state.topics, now)?;
        entry.changed.notify_waiters();
        self.watch(state);
        Ok(())
    }

    pub(crate) fn leave(&self, group: &str, member: &str) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(entry) = state.groups.get_mut(group) {
            entry.group.leave(member, &state.topics, self.clock.monotonic());
            entry.changed.notify_waiters();
            state.forget_if_empty(group, self.clock.now_ms());
            self.watch(state);
        }
    }

    /// A member is alive; expels those that are late, too.
    pub(crate) fn heartbeat(&self, group: &str, member: &str) -> Result<()> {
        let mut state = self.state.lock();
        let alive = state
            .group(group, member)?
            .heartbeat(member, self.clock.monotonic());
        if self.expel(&mut state) {
            self.watch(&mut state);
        }
        alive
    }

    pub(crate) fn poll(&self, group: &str, member: &str) -> Result<Directive> {
        let mut state = self.state.lock();
        state.group(group, member)?.poll(member, self.clock.monotonic())
    }

    pub(crate) fn polled(&self, group: &str, member: &str) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(entry) = state.groups.get_mut(group) {
            entry.group.polled(member, self.clock.monotonic());
            self.watch(state);
        }
    }

    pub(crate) fn revoked(
        &self,
        group: &str,
        member: &str,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let Some(entry) = state.groups.get_mut(group) else {
            return Err(gone(group, member));
        };
        if entry.group.revoked(member, partitions, self.clock.monotonic())? {
            entry.changed.notify_waiters();
        }
        Ok(())
    }

    /// A topic has so many partitions now, or none as it was deleted.
    pub(crate) fn topic_changed(&self, topic: &str, partitions: Option<u32>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        match partitions {
            Some(partitions) => state.topics.insert(topic.into(), partitions),
            None => state.topics.remove(topic),
        };
        for entry in state.groups.values_mut() {
            if entry.group.topics_changed(&state.topics) {
                entry.changed.notify_waiters();
            }
        }
        self.watch(state);
    }

    /// The topics a subscription means now.
    pub(crate) fn topics_of(&self, subscription: &Subscription) -> BTreeSet<Arc<str>> {
        subscription.topics(&self.state.lock().topics)
    }

    /// Completes when the broker closes; make it before looking whether it is.
    pub(crate) fn closing(&self) -> Notified<'_> {
        self.closing.notified()
    }

    /// The broker closes: consumers that wait look at that.
    pub(crate) fn close(&self) {
        self.closing.notify_waiters();
    }

    /// Locks the registry if `metadata` may commit these offsets: until the guard is dropped, it may.
    pub(crate) fn fence(
        &self,
        metadata: &ConsumerGroupMetadata,
        offsets: &[OffsetCommit<'_>],
    ) -> Result<MutexGuard<'_, State>> {
        let Some(member) = &metadata.member_id else {
            return self.without_members(&metadata.group);
        };
        let mut state = self.state.lock();
        let partitions = offsets.iter().map(|commit| (commit.topic, commit.partition));
        state
            .group(&metadata.group, member)?
            .check_commit(member, metadata.generation, partitions)?;
        Ok(state)
    }

    /// Locks the registry if the group has no members: until the guard is dropped, nobody joins.
    pub(crate) fn without_members(&self, group: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        self.expel(&mut state);
        match state.groups.get(group) {
            Some(entry) => Err(Error::GroupNotEmpty {
                group: group.to_owned(),
                members: entry.group.describe().members.len(),
            }),
            None => Ok(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The group as its members make it; `None` without any.
    pub(crate) fn describe(&self, group: &str) -> Option<GroupDescription> {
        let mut state = self.state.lock();
        self.expel(&mut state);
        Some(state.groups.get(group)?.group.describe())
    }

    /// The groups with members, and their states.
    pub(crate) fn states(&self) -> BTreeMap<String, GroupState> {
        let mut state = self.state.lock();
        self.expel(&mut state);
        let described = |(name, entry): (&Arc<str>, &Entry)| (name.to_string(), entry.group.describe().state);
        state.groups.iter().map(described).collect()
    }

    /// Expels who is late. Answers whether there was anybody.
    fn expel(&self, state: &mut State) -> bool {
        let (now, now_ms) = (self.clock.monotonic(), self.clock.now_ms());
        let mut late = Vec::new();
        for (name, entry) in &mut state.groups {
            let due = entry.group.next_deadline().is_some_and(|due| due <= now);
            if due && entry.group.tick(&state.topics, now) {
                entry.changed.notify_waiters();
                late.push(Arc::clone(name));
            }
        }
        for name in &late {
            state.forget_if_empty(name, now_ms);
        }
        !late.is_empty()
    }

    /// Has the keeper look when the next member may be late.
    fn watch(&self, state: &mut State) {
        let next = state
            .groups
            .values()
            .filter_map(|entry| entry.group.next_deadline())
            .min();
        let Some(due) = next else { return };
        if state.check_at.is_some_and(|at| at <= due) {
            return;
        }
        let me = self.me.clone();
        let look = move || {
            if let Some(registry) = me.upgrade() {
                let mut state = registry.state.lock();
                if state.check_at == Some(due) {
                    state.check_at = None;
                }
                registry.expel(&mut state);
                registry.watch(&mut state);
            }
            Ok(())
        };
        match self.keeper.at("group sessions", due, look) {
            Ok(()) => state.check_at = Some(due),
            Err(Error::Closed) => {}
            Err(error) => tracing::warn!(%error, "members that hang are noticed by the others only"),
        }
    }
}

impl State {
    fn group(&mut self, group: &str, member: &str) -> Result<&mut Group> {
        match self.groups.get_mut(group) {
            Some(entry) => Ok(&mut entry.group),
            None => Err(gone(group, member)),
        }
    }

    pub(crate) fn has_members(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// When the group lost its last member, if it had any since the broker was opened.
    pub(crate) fn emptied_at(&self, group: &str) -> Option<i64> {
        self.emptied.as_ref()?.get(group).copied()
    }

    /// Forgets when groups became empty, where that is before `time`.
    pub(crate) fn forget_emptied(&mut self, time: i64) {
        if let Some(emptied) = &mut self.emptied {
            emptied.retain(|_, at| *at > time);
        }
    }

    fn forget_if_empty(&mut self, group: &str, now_ms: i64) {
        if self.groups.get(group).is_some_and(|entry| entry.group.is_empty())
            && let Some((name, _)) = self.groups.remove_entry(group)
            && let Some(emptied) = &mut self.emptied
        {
            emptied.insert(name, now_ms);
        }
    }
}

/// The group has no members at all.
fn gone(group: &str, member: &str) -> Error {
    Error::UnknownMember {
        group: group.to_owned(),
        member_id: member.to_owned(),
        reason: "all members of the group left or were expelled".to_owned(),
    }
}
