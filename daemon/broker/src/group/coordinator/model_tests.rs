//! A model of a group: its members do anything in any order, topics come and go, time jumps; what each of them believes
//! is compared with what the group lets them commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::joining;
use crate::error::Error;
use crate::group::assignor::Assignor;
use crate::group::coordinator::Group;
use crate::group::coordinator::member::Joining;
use crate::group::description::GroupState;
use crate::group::subscription::{Subscription, TopicCounts};
use crate::topic_partition::TopicPartition;

/// What a member believes.
#[derive(Debug, Clone, Default)]
struct Client {
    id: String,
    /// By partition the generation it was given in.
    owned: BTreeMap<TopicPartition, i32>,
    revoking: BTreeSet<TopicPartition>,
    /// What it owns as far as it knows, but was deleted.
    deleted: BTreeSet<TopicPartition>,
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
        3 => (who.clone(), 1_u8..16).prop_map(|(i, topics)| Step::Join(i, topics)),
        1 => (who.clone(), 0_u8..16).prop_map(|(i, topics)| Step::Subscribe(i, topics)),
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

/// To some of three topics: by a pattern with bit 3.
fn subscription(mask: u8) -> Subscription {
    let topics = (0..3).filter(|i| mask >> i & 1 == 1).map(|i| ["a", "b", "c"][i]);
    if mask & 8 == 0 {
        Subscription::Topics(topics.map(Arc::from).collect())
    } else {
        Subscription::pattern(&topics.collect::<Vec<_>>().join("|")).unwrap()
    }
}

/// The group under test, and what its members believe.
struct World {
    group: Group,
    topics: TopicCounts,
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
        match step {
            Step::Join(i, mask) if self.clients[*i].is_none() => {
                self.joined += 1;
                let id = format!("m{}", self.joined);
                let member = Joining {
                    subscription: subscription(*mask),
                    assignor: self.assignor,
                    ..joining(&id, &[])
                };
                self.group.join(member, &topics, now).unwrap();
                self.clients[*i] = Some(Client {
                    id,
                    ..Client::default()
                });
            }
            Step::Time(by) => self.seconds = (self.seconds + by).max(0),
            Step::Tick => {
                self.group.tick(&topics, now);
            }
            Step::Topic(t, count) => {
                let name = ["a", "b", "c"][usize::from(*t)];
                match count {
                    Some(count) => self.topics.insert(name.into(), *count),
                    None => self.topics.remove(name),
                };
                for client in self.clients.iter_mut().flatten() {
                    let gone =
                        |part: &&TopicPartition| *part.topic == *name && part.partition >= count.unwrap_or(0);
                    client.deleted.extend(client.owned.keys().filter(gone).cloned());
                }
                self.group.topics_changed(&self.topics);
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
                        group.subscribe(&client.id, subscription(*mask), &topics, now)
                    }
                    Step::Heartbeat(_) => group.heartbeat(&client.id, now),
                    Step::Poll(_) => group.poll(&client.id, now).map(|told| {
                        client.generation = told.generation;
                        assert_eq!(told.lost, std::mem::take(&mut client.deleted));
                        client.owned.retain(|part, _| !told.lost.contains(part));
                        for part in told.assign {
                            assert!(client.owned.insert(part, told.generation).is_none());
                        }
                        client.revoking = told.revoke;
                    }),
                    Step::Acknowledge(_) => group.revoked(&client.id, &client.revoking, now).map(|_| {
                        for part in std::mem::take(&mut client.revoking) {
                            client.owned.remove(&part);
                            client.deleted.remove(&part);
                        }
                    }),
                    Step::Polled(_) => {
                        group.polled(&client.id, now);
                        Ok(())
                    }
                    _ => {
                        group.leave(&client.id, &topics, now);
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
                    let live = live.filter(|client| !client.deleted.contains(&part));
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
        let counted = subscribed.iter().filter_map(|topic| self.topics.get(*topic));
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
            topics: [("a".into(), 3), ("b".into(), 2)].into(),
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
