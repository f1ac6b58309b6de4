//! The state machine of a group, driven by members that join, poll, hang, come back, and by time that jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::error::Error;
use crate::group::assignor::Assignor;
use crate::group::coordinator::{Group, Joining};
use crate::group::description::GroupState;
use crate::topic_partition::TopicPartition;

const SESSION: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_mins(5);

fn joining(id: &str, topics: &[&str]) -> Joining {
    Joining {
        member_id: id.into(),
        instance_id: None,
        client_id: "test".into(),
        topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
        assignor: Assignor::Sticky,
        session_timeout: SESSION,
        max_poll_interval: POLL,
    }
}

fn two(topic: &str) -> Option<u32> {
    (topic == "t").then_some(2)
}

fn parts(topic: &str, partitions: &[u32]) -> BTreeSet<TopicPartition> {
    partitions
        .iter()
        .map(|p| TopicPartition::new(topic, *p))
        .collect()
}

fn may_commit(group: &Group, member: &str, generation: i32, partition: u32) -> bool {
    group
        .check_commit(member, generation, std::iter::once(("t", partition)))
        .is_ok()
}

#[test]
fn a_partition_moves_only_once_it_is_given_up() {
    let now = Instant::now();
    let mut group = Group::new("g", now);
    group.join(joining("a", &["t"]), &two, now).unwrap();
    let first = group.poll("a", now).unwrap();
    assert_eq!((first.generation, &first.assign), (1, &parts("t", &[0, 1])));
    group.join(joining("b", &["t"]), &two, now).unwrap();
    assert!(
        group.poll("b", now).unwrap().assign.is_empty(),
        "a still owns all"
    );
    let told = group.poll("a", now).unwrap();
    assert_eq!((told.generation, &told.revoke), (1, &parts("t", &[1])));
    assert!(may_commit(&group, "a", 1, 1), "until it is given up");
    assert_eq!(group.describe().state, GroupState::PreparingRebalance);
    assert!(group.revoked("a", &told.revoke, now).unwrap());
    assert!(!may_commit(&group, "a", 1, 1));
    assert!(
        may_commit(&group, "a", 1, 0),
        "what it kept is good under the old generation"
    );
    let given = group.poll("b", now).unwrap();
    assert_eq!((given.generation, &given.assign), (2, &parts("t", &[1])));
    assert_eq!(group.poll("a", now).unwrap().generation, 2);
    assert_eq!(group.describe().state, GroupState::Stable);
    assert!(
        may_commit(&group, "b", 2, 1) && !may_commit(&group, "b", 1, 1) && !may_commit(&group, "b", 3, 1)
    );

    // A partition that left and came back is not good under the generation of before.
    group.leave("b", &two, now);
    assert_eq!(group.poll("a", now).unwrap().assign, parts("t", &[1]));
    assert!(!may_commit(&group, "a", 1, 1) && may_commit(&group, "a", 3, 1));
}

#[test]
fn who_hangs_is_expelled_and_told_why() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut group = Group::new("g", start);
    let reason = |group: &mut Group, id: &str, now| match group.heartbeat(id, now) {
        Err(Error::UnknownMember { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    for id in ["silent", "stuck", "greedy"] {
        group.join(joining(id, &["t"]), &two, start).unwrap();
        group.poll(id, start).unwrap();
    }
    group.polled("stuck", start);
    // Has both partitions, and holds on to them within a poll.
    assert!(!group.tick(&two, at(44)));
    group.heartbeat("stuck", at(44)).unwrap();
    group.heartbeat("greedy", at(44)).unwrap();
    assert!(group.tick(&two, at(45)));
    assert!(reason(&mut group, "silent", at(45)).contains("session.timeout.ms"));
    let mut now = 44;
    while now < 299 {
        now += 40.min(299 - now);
        group.heartbeat("stuck", at(now)).unwrap();
        group.heartbeat("greedy", at(now)).unwrap();
        assert!(!group.tick(&two, at(now)), "{now}");
    }
    assert_eq!(group.next_deadline(), Some(at(300)));
    assert!(group.tick(&two, at(300)));
    assert!(reason(&mut group, "stuck", at(300)).contains("did not poll"));
    assert!(group.poll("silent", at(300)).is_err());

    // Another member makes it give up what it holds; it neither does, nor leaves its poll.
    group.poll("greedy", at(300)).unwrap();
    group.join(joining("new", &["t"]), &two, at(300)).unwrap();
    for now in (300..600).step_by(30) {
        for id in ["greedy", "new"] {
            group.poll(id, at(now)).unwrap();
        }
        assert!(!group.tick(&two, at(now)));
    }
    assert!(group.tick(&two, at(600)));
    assert!(reason(&mut group, "greedy", at(600)).contains("did not give up"));
    assert_eq!(group.poll("new", at(600)).unwrap().assign, parts("t", &[0, 1]));
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    let now = Instant::now();
    let mut group = Group::new("g", now);
    let fixed = |id: &str, instance: &str| Joining {
        instance_id: Some(instance.into()),
        ..joining(id, &["t"])
    };
    for assignor in [Assignor::Sticky, Assignor::Range, Assignor::RoundRobin] {
        let with = |joining: Joining| Joining { assignor, ..joining };
        group.join(with(fixed("x1", "one")), &two, now).unwrap();
        group.join(with(fixed("b1", "two")), &two, now).unwrap();
        let had = group.poll("x1", now).unwrap().assign;
        let other = group.poll("b1", now).unwrap().assign;
        assert_eq!((had.len(), other.len()), (1, 1));
        group.join(with(fixed("a2", "one")), &two, now).unwrap();
        assert!(matches!(
            group.heartbeat("x1", now),
            Err(Error::FencedInstance { .. })
        ));
        assert_eq!(group.poll("a2", now).unwrap().assign, had);
        assert!(group.poll("b1", now).unwrap().revoke.is_empty());
        for id in ["a2", "b1"] {
            group.leave(id, &two, now);
        }
    }
    group.join(joining("c", &["t"]), &two, now).unwrap();
    let other = Joining {
        assignor: Assignor::Range,
        ..joining("d", &["t"])
    };
    let refused = group.join(other, &two, now);
    assert!(matches!(refused, Err(Error::InconsistentAssignor { .. })));
}

/// What a member believes.
#[derive(Debug, Clone, Default)]
struct Client {
    id: String,
    /// By partition the generation it was given in.
    owned: BTreeMap<TopicPartition, i32>,
    revoking: BTreeSet<TopicPartition>,
    generation: i32,
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize, u8),
    Subscribe(usize, u8),
    Leave(usize),
    Heartbeat(usize),
    Poll(usize),
    Polled(usize),
    Acknowledge(usize),
    Time(i64),
    Tick,
    Topic(u8, Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_usize..4;
    prop_oneof![
        3 => (who.clone(), 1_u8..8).prop_map(|(i, topics)| Step::Join(i, topics)),
        1 => (who.clone(), 0_u8..8).prop_map(|(i, topics)| Step::Subscribe(i, topics)),
        1 => who.clone().prop_map(Step::Leave),
        3 => who.clone().prop_map(Step::Heartbeat),
        8 => who.clone().prop_map(Step::Poll),
        3 => who.clone().prop_map(Step::Polled),
        5 => who.prop_map(Step::Acknowledge),
        3 => (-100_i64..200).prop_map(Step::Time),
        3 => Just(Step::Tick),
        2 => (0_u8..3, proptest::option::of(0_u32..6)).prop_map(|(t, n)| Step::Topic(t, n)),
    ]
}

fn subscription(mask: u8) -> BTreeSet<Arc<str>> {
    (0..3)
        .filter(|i| mask >> i & 1 == 1)
        .map(|i| Arc::from(["a", "b", "c"][i]))
        .collect()
}

/// The group under test, and what its members believe.
struct World {
    group: Group,
    topics: BTreeMap<&'static str, u32>,
    clients: Vec<Option<Client>>,
    /// Every member there was, with all generations it was told of.
    history: Vec<Client>,
    seconds: i64,
    start: Instant,
    joined: u32,
    assignor: Assignor,
}

impl World {
    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds.try_into().unwrap())
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now();
        let topics = self.topics.clone();
        let counts = |topic: &str| topics.get(topic).copied();
        match step {
            Step::Join(i, mask) if self.clients[*i].is_none() => {
                self.joined += 1;
                let id = format!("m{}", self.joined);
                let member = Joining {
                    topics: subscription(*mask),
                    assignor: self.assignor,
                    ..joining(&id, &[])
                };
                self.group.join(member, &counts, now).unwrap();
                self.clients[*i] = Some(Client {
                    id,
                    ..Client::default()
                });
            }
            Step::Time(by) => self.seconds = (self.seconds + by).max(0),
            Step::Tick => {
                self.group.tick(&counts, now);
            }
            Step::Topic(t, count) => {
                let name = ["a", "b", "c"][usize::from(*t)];
                match count {
                    Some(count) => self.topics.insert(name, *count),
                    None => self.topics.remove(name),
                };
                let topics = self.topics.clone();
                self.group.topics_changed(&|topic| topics.get(topic).copied());
            }
            Step::Join(..) => {}
            Step::Subscribe(i, _)
            | Step::Leave(i)
            | Step::Heartbeat(i)
            | Step::Poll(i)
            | Step::Polled(i)
            | Step::Acknowledge(i) => {
                let Some(mut client) = self.clients[*i].take() else {
                    return Ok(());
                };
                let group = &mut self.group;
                let called = match step {
                    Step::Subscribe(_, mask) => {
                        group.subscribe(&client.id, subscription(*mask), &counts, now)
                    }
                    Step::Heartbeat(_) => group.heartbeat(&client.id, now),
                    Step::Poll(_) => group.poll(&client.id, now).map(|told| {
                        client.generation = told.generation;
                        for part in told.assign {
                            assert!(client.owned.insert(part, told.generation).is_none());
                        }
                        client.revoking = told.revoke;
                    }),
                    Step::Acknowledge(_) => group.revoked(&client.id, &client.revoking, now).map(|_| {
                        for part in std::mem::take(&mut client.revoking) {
                            client.owned.remove(&part);
                        }
                    }),
                    Step::Polled(_) => {
                        group.polled(&client.id, now);
                        Ok(())
                    }
                    _ => {
                        group.leave(&client.id, &counts, now);
                        let id = client.id.clone();
                        self.history.push(client);
                        prop_assert!(group.heartbeat(&id, now).is_err());
                        return Ok(());
                    }
                };
                self.history.push(client.clone());
                match called {
                    Ok(()) => self.clients[*i] = Some(client),
                    Err(Error::UnknownMember { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        self.check()
    }

    /// No two members own a partition, and commits are good for its owner alone, since it owns it.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut owners: BTreeMap<TopicPartition, &str> = BTreeMap::new();
        for then in &self.history {
            let live = self.clients.iter().flatten().find(|client| client.id == then.id);
            for topic in ["a", "b", "c"] {
                for partition in 0..6 {
                    let part = TopicPartition::new(topic, partition);
                    let one = std::iter::once((topic, partition));
                    let good = self.group.check_commit(&then.id, then.generation, one).is_ok();
                    let since = live.and_then(|client| client.owned.get(&part));
                    let believed = since.is_some_and(|since| *since <= then.generation);
                    if good {
                        prop_assert!(believed, "{} commits {part} under {}", then.id, then.generation);
                        let owner = owners.entry(part).or_insert(&then.id);
                        prop_assert_eq!(*owner, &then.id);
                    } else if believed {
                        // Only somebody expelled, who does not know yet.
                        prop_assert!(
                            self.group
                                .describe()
                                .members
                                .iter()
                                .all(|m| m.member_id != then.id)
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Once everybody polls, everything is owned as it should be.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..4 {
            for i in 0..self.clients.len() {
                self.run(&Step::Poll(i))?;
                self.run(&Step::Acknowledge(i))?;
                self.run(&Step::Poll(i))?;
            }
        }
        let described = self.group.describe();
        let expected = if described.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        prop_assert_eq!(described.state, expected);
        let subscribed: BTreeSet<_> = described.members.iter().flat_map(|m| m.topics.iter()).collect();
        let counted = subscribed.iter().filter_map(|topic| self.topics.get(&***topic));
        let owned: Vec<_> = described
            .members
            .iter()
            .flat_map(|m| m.assignment.iter())
            .collect();
        prop_assert_eq!(owned.len(), counted.sum::<u32>() as usize);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_two_members_own_a_partition(
        steps in proptest::collection::vec(step(), 1..60),
        assignor in prop_oneof![Just(Assignor::Range), Just(Assignor::RoundRobin), Just(Assignor::Sticky)],
    ) {
        let start = Instant::now();
        let mut world = World {
            group: Group::new("g", start),
            topics: [("a", 3), ("b", 2)].into(),
            clients: vec![None; 4],
            history: Vec::new(),
            seconds: 0,
            start,
            joined: 0,
            assignor,
        };
        for step in &steps {
            world.run(step)?;
        }
        world.settle()?;
    }
}
