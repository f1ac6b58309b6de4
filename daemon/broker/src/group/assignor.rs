//! Which member of a group gets which partitions: pure functions of the subscriptions, the partitions there are, and,
//! for the sticky one, who has what now.
//!
//! All three give each partition of a topic that anybody subscribes to, to exactly one of its subscribers. Range and
//! round-robin are Kafka's `RangeAssignor` and `RoundRobinAssignor`. The sticky one aims at what Kafka's
//! `CooperativeStickyAssignor` does, by another way: each member keeps what it has; what nobody has goes to who was to
//! have it, or to whoever has least; and then, as long as there is one, partitions move along the shortest path of
//! subscriptions from a member to another that has at least two fewer. With equal subscriptions that ends within 1 of each
//! other after the fewest moves; with unequal ones no sequence of moves could balance it better.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use crate::topic_partition::TopicPartition;

/// How the partitions of the subscribed topics are shared out among the members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assignor {
    /// Topic by topic, a stretch of partitions to each member: equal partitions of several topics come together.
    Range,
    /// All partitions of all topics dealt out in turn.
    RoundRobin,
    /// Balanced, moving as few partitions as it takes (the default).
    #[default]
    Sticky,
}

/// A member, as assignors see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscriber<'a> {
    pub(crate) topics: &'a BTreeSet<Arc<str>>,
    /// What it was to have before.
    pub(crate) target: &'a BTreeSet<TopicPartition>,
    /// What it has right now, which differs within a rebalance.
    pub(crate) owned: &'a BTreeSet<TopicPartition>,
}

pub(crate) type Assignment = BTreeSet<TopicPartition>;

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
        })
    }
}

impl Assignor {
    /// The assignments in the order of `members`; `partitions` has the partition count of each topic there is.
    pub(crate) fn assign(
        self,
        partitions: &BTreeMap<Arc<str>, u32>,
        members: &[Subscriber<'_>],
    ) -> Vec<Assignment> {
        match self {
            Self::Range => range(partitions, members),
            Self::RoundRobin => round_robin(partitions, members),
            Self::Sticky => sticky(partitions, members),
        }
    }
}

fn range(partitions: &BTreeMap<Arc<str>, u32>, members: &[Subscriber<'_>]) -> Vec<Assignment> {
    let mut assigned = vec![Assignment::new(); members.len()];
    for (topic, count) in partitions {
        let subscribers: Vec<usize> = subscribers_of(topic, members).collect();
        let Some(each) = (*count as usize).checked_div(subscribers.len()) else {
            continue;
        };
        let more = *count as usize % subscribers.len();
        let mut from = 0;
        for (i, member) in subscribers.into_iter().enumerate() {
            let to = from + each as u32 + u32::from(i < more);
            assigned[member].extend((from..to).map(|p| TopicPartition::new(Arc::clone(topic), p)));
            from = to;
        }
    }
    assigned
}

fn round_robin(partitions: &BTreeMap<Arc<str>, u32>, members: &[Subscriber<'_>]) -> Vec<Assignment> {
    let mut assigned = vec![Assignment::new(); members.len()];
    let mut turn = 0;
    for (topic, count) in partitions {
        for partition in 0..*count {
            let next = (turn..turn + members.len())
                .map(|i| i % members.len())
                .find(|i| members[*i].topics.contains(topic));
            let Some(member) = next else { break };
            assigned[member].insert(TopicPartition::new(Arc::clone(topic), partition));
            turn = member + 1;
        }
    }
    assigned
}

fn subscribers_of<'a>(
    topic: &'a Arc<str>,
    members: &'a [Subscriber<'_>],
) -> impl Iterator<Item = usize> + 'a {
    let subscribed = move |i: &usize| members[*i].topics.contains(topic);
    (0..members.len()).filter(subscribed)
}

/// Assignments being balanced. Topics and members are numbered.
struct Balance {
    /// The members subscribed to each topic.
    subscribers: Vec<Vec<usize>>,
    /// The partitions of each member by topic; no empty sets.
    held: Vec<BTreeMap<usize, BTreeSet<u32>>>,
    load: Vec<usize>,
}

fn sticky(partitions: &BTreeMap<Arc<str>, u32>, members: &[Subscriber<'_>]) -> Vec<Assignment> {
    let topics: Vec<&Arc<str>> = partitions.keys().collect();
    let mut balance = Balance {
        subscribers: topics
            .iter()
            .map(|topic| subscribers_of(topic, members).collect())
            .collect(),
        held: vec![BTreeMap::new(); members.len()],
        load: vec![0; members.len()],
    };
    // First what everybody has, of all topics, so that what is left goes where there is least.
    let mut free: Vec<BTreeSet<u32>> = partitions.values().map(|count| (0..*count).collect()).collect();
    let wanted = members.iter().map(|member| member.target);
    let has = members.iter().map(|member| member.owned);
    for kept in [has.collect::<Vec<_>>(), wanted.collect()] {
        for (topic, (name, free)) in partitions.keys().zip(&mut free).enumerate() {
            let first = TopicPartition::new(Arc::clone(name), 0);
            let last = TopicPartition::new(Arc::clone(name), u32::MAX);
            for member in balance.subscribers[topic].clone() {
                for kept in kept[member].range(&first..=&last) {
                    if free.remove(&kept.partition) {
                        balance.give(member, topic, kept.partition);
                    }
                }
            }
        }
    }
    for (topic, free) in free.into_iter().enumerate() {
        for partition in free {
            let least = balance.subscribers[topic]
                .iter()
                .min_by_key(|i| balance.load[**i]);
            if let Some(member) = least.copied() {
                balance.give(member, topic, partition);
            }
        }
    }
    balance.even_out();
    let named = |held: BTreeMap<usize, BTreeSet<u32>>| {
        let of_topic = |(topic, partitions): (usize, BTreeSet<u32>)| {
            let name = Arc::clone(topics[topic]);
            partitions
                .into_iter()
                .map(move |p| TopicPartition::new(Arc::clone(&name), p))
        };
        held.into_iter().flat_map(of_topic).collect()
    };
    balance.held.into_iter().map(named).collect()
}

impl Balance {
    fn give(&mut self, member: usize, topic: usize, partition: u32) {
        self.held[member].entry(topic).or_default().insert(partition);
        self.load[member] += 1;
    }

    /// Takes the last partition of a topic from a member.
    fn take(&mut self, member: usize, topic: usize) -> Option<u32> {
        let partitions = self.held[member].get_mut(&topic)?;
        let partition = partitions.pop_last();
        if partitions.is_empty() {
            self.held[member].remove(&topic);
        }
        self.load[member] -= usize::from(partition.is_some());
        partition
    }

    /// Each move lowers the sum of the squares of the loads, so that this ends.
    fn even_out(&mut self) {
        loop {
            let least = self.load.iter().min().copied().unwrap_or(0);
            let mut donors: Vec<usize> = (0..self.load.len())
                .filter(|i| self.load[*i] >= least + 2)
                .collect();
            donors.sort_by_key(|i| std::cmp::Reverse(self.load[*i]));
            let Some(path) = donors.into_iter().find_map(|donor| self.path(donor)) else {
                return;
            };
            for (from, topic, to) in path {
                if let Some(partition) = self.take(from, topic) {
                    self.give(to, topic, partition);
                }
            }
        }
    }

    /// The moves (from, topic, to) by which `donor` gives one partition away and a member with at least two fewer
    /// gets one: the fewest, and to the member with the least among those as near.
    fn path(&self, donor: usize) -> Option<Vec<(usize, usize, usize)>> {
        let mut came: Vec<Option<(usize, usize)>> = vec![None; self.load.len()];
        let mut topic_seen = vec![false; self.subscribers.len()];
        let mut level = VecDeque::from([donor]);
        while !level.is_empty() {
            let mut next = VecDeque::new();
            for from in level {
                for topic in self.held[from].keys().copied() {
                    // All its subscribers are seen when the first of its holders is.
                    if std::mem::replace(&mut topic_seen[topic], true) {
                        continue;
                    }
                    for to in self.subscribers[topic].iter().copied() {
                        if to != donor && came[to].is_none() {
                            came[to] = Some((from, topic));
                            next.push_back(to);
                        }
                    }
                }
            }
            let least = next.iter().copied().min_by_key(|i| self.load[*i]);
            if let Some(end) = least.filter(|i| self.load[*i] + 2 <= self.load[donor]) {
                let mut path = Vec::new();
                let mut to = end;
                while let Some((from, topic)) = came[to] {
                    path.push((from, topic, to));
                    to = from;
                }
                // From the donor on, so that nobody gives what it does not have yet.
                path.reverse();
                return Some(path);
            }
            level = next;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Members = Vec<(BTreeSet<Arc<str>>, Assignment)>;

    fn run(assignor: Assignor, partitions: &BTreeMap<Arc<str>, u32>, members: &Members) -> Vec<Assignment> {
        let subscribers: Vec<_> = members
            .iter()
            .map(|(topics, owned)| Subscriber {
                topics,
                target: owned,
                owned,
            })
            .collect();
        assignor.assign(partitions, &subscribers)
    }

    fn names(topics: &[&str]) -> BTreeSet<Arc<str>> {
        topics.iter().map(|topic| Arc::from(*topic)).collect()
    }

    fn shown(assigned: &[Assignment]) -> Vec<Vec<String>> {
        assigned
            .iter()
            .map(|parts| parts.iter().map(ToString::to_string).collect())
            .collect()
    }

    /// Topics `a` to `d` of up to 12 partitions, and members with any subscriptions and any past.
    fn setting() -> impl Strategy<Value = (BTreeMap<Arc<str>, u32>, Members)> {
        let counts = proptest::collection::vec(0_u32..12, 4);
        let members = proptest::collection::vec(
            (0_u8..16, proptest::collection::vec((0_u8..4, 0_u32..12), 0..12)),
            0..8,
        );
        (counts, members).prop_map(|(counts, members)| {
            let topic = |i: usize| Arc::from(["a", "b", "c", "d"][i]);
            let partitions = counts
                .into_iter()
                .enumerate()
                .map(|(i, n)| (topic(i), n))
                .collect();
            let member = |(mask, owned): (u8, Vec<(u8, u32)>)| {
                let topics = (0..4).filter(|i| mask >> i & 1 == 1).map(topic).collect();
                let owned = owned
                    .into_iter()
                    .map(|(t, p)| TopicPartition::new(topic(t.into()), p));
                (topics, owned.collect())
            };
            (partitions, members.into_iter().map(member).collect())
        })
    }

    fn equal(count: u32, members: usize) -> (BTreeMap<Arc<str>, u32>, Members) {
        let partitions = [(Arc::from("a"), count), (Arc::from("b"), count / 2)].into();
        (partitions, vec![(names(&["a", "b"]), Assignment::new()); members])
    }

    fn spread(assigned: &[Assignment]) -> usize {
        let loads = || assigned.iter().map(BTreeSet::len);
        loads().max().unwrap_or(0) - loads().min().unwrap_or(0)
    }

    #[test]
    fn range_and_round_robin_are_kafkas() {
        let partitions = [(Arc::from("a"), 3), (Arc::from("b"), 3)].into();
        let members = vec![(names(&["a", "b"]), Assignment::new()); 2];
        let assigned = run(Assignor::Range, &partitions, &members);
        assert_eq!(
            shown(&assigned),
            [vec!["a-0", "a-1", "b-0", "b-1"], vec!["a-2", "b-2"]]
        );
        let assigned = run(Assignor::RoundRobin, &partitions, &members);
        assert_eq!(shown(&assigned), [["a-0", "a-2", "b-1"], ["a-1", "b-0", "b-2"]]);
    }

    #[test]
    fn a_chain_of_moves_balances_unequal_subscriptions() {
        // 4, 2, 0: the first can give only to the second, which then can give to the third.
        let partitions = [(Arc::from("a"), 4), (Arc::from("b"), 2)].into();
        let owned = |topic: &str, n: u32| (0..n).map(|p| TopicPartition::new(topic, p)).collect();
        let members = vec![
            (names(&["a"]), owned("a", 4)),
            (names(&["a", "b"]), owned("b", 2)),
            (names(&["b"]), Assignment::new()),
        ];
        let assigned = run(Assignor::Sticky, &partitions, &members);
        assert_eq!(spread(&assigned), 0, "{:?}", shown(&assigned));
    }

    proptest! {
        #[test]
        fn every_partition_goes_to_one_of_its_subscribers((partitions, members) in setting()) {
            for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky] {
                let assigned = run(assignor, &partitions, &members);
                prop_assert_eq!(assigned.len(), members.len());
                for (topic, count) in &partitions {
                    let wanted = members.iter().any(|(topics, _)| topics.contains(topic));
                    for partition in 0..*count {
                        let part = TopicPartition::new(Arc::clone(topic), partition);
                        let owners: Vec<_> = (0..members.len()).filter(|i| assigned[*i].contains(&part)).collect();
                        prop_assert_eq!(owners.len(), usize::from(wanted));
                        prop_assert!(owners.iter().all(|i| members[*i].0.contains(topic)));
                    }
                }
                let given: usize = assigned.iter().map(BTreeSet::len).sum();
                let wanted = |topic| members.iter().any(|(topics, _)| topics.contains(topic));
                let there: u32 = partitions.iter().filter(|(t, _)| wanted(*t)).map(|(_, n)| n).sum();
                prop_assert_eq!(given, there as usize);
            }
        }

        #[test]
        fn sticky_is_balanced_and_stays((partitions, members) in setting()) {
            let assigned = run(Assignor::Sticky, &partitions, &members);
            for (i, (topics, _)) in members.iter().enumerate() {
                for (j, from) in assigned.iter().enumerate() {
                    let could_move = from.iter().any(|part| topics.contains(&part.topic));
                    let fair = from.len() <= assigned[i].len() + 1;
                    prop_assert!(fair || !could_move, "{j} has {} and {i} {}", from.len(), assigned[i].len());
                }
            }
            let again: Members = members.iter().zip(&assigned).map(|((t, _), a)| (t.clone(), a.clone())).collect();
            prop_assert_eq!(run(Assignor::Sticky, &partitions, &again), assigned);
        }

        #[test]
        fn sticky_moves_no_more_than_it_must(count in 0_u32..40, before in 1_usize..8, joins in any::<bool>(), who in any::<prop::sample::Index>()) {
            let (partitions, mut members) = equal(count, before);
            let assigned = run(Assignor::Sticky, &partitions, &members);
            prop_assert!(spread(&assigned) <= 1);
            for (member, assigned) in members.iter_mut().zip(assigned) {
                member.1 = assigned;
            }
            let mut gone = Assignment::new();
            if joins {
                members.insert(who.index(before + 1), (names(&["a", "b"]), Assignment::new()));
            } else if before > 1 {
                gone = members.remove(who.index(before)).1;
            }
            let after = run(Assignor::Sticky, &partitions, &members);
            prop_assert!(spread(&after) <= 1);
            let moved: usize = members.iter().zip(&after).map(|((_, had), has)| had.difference(has).count()).sum();
            // Only the one that joined takes from others, and no more than its share.
            let total = (count + count / 2) as usize;
            let least = if joins { total / members.len() } else { 0 };
            prop_assert_eq!(moved, least, "{} gone", gone.len());
        }

        #[test]
        fn equal_subscriptions_are_within_one(count in 0_u32..40, members in 1_usize..8) {
            let (partitions, members) = equal(count, members);
            let assigned = run(Assignor::RoundRobin, &partitions, &members);
            prop_assert!(spread(&assigned) <= 1);
            // Range is balanced topic by topic.
            prop_assert!(spread(&run(Assignor::Range, &partitions, &members)) <= 2);
        }
    }
}
