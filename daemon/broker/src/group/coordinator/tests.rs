//! What a group does when its members join, poll, hang and come back, and topics come and go: case by case.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::group::assignor::Assignor;
use crate::group::coordinator::Group;
use crate::group::coordinator::member::Joining;
use crate::group::description::GroupState;
use crate::group::subscription::{Subscription, TopicCounts};
use crate::topic_partition::TopicPartition;

const SESSION: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_mins(5);

pub(super) fn joining(id: &str, topics: &[&str]) -> Joining {
    Joining {
        member_id: id.into(),
        instance_id: None,
        client_id: "test".into(),
        subscription: to(topics),
        assignor: Assignor::Sticky,
        session_timeout: SESSION,
        max_poll_interval: POLL,
    }
}

fn to(topics: &[&str]) -> Subscription {
    Subscription::Topics(topics.iter().map(|topic| Arc::from(*topic)).collect())
}

fn two() -> TopicCounts {
    [("t".into(), 2)].into()
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
    group.join(joining("a", &["t"]), &two(), now).unwrap();
    let first = group.poll("a", now).unwrap();
    assert_eq!((first.generation, &first.assign), (1, &parts("t", &[0, 1])));
    group.join(joining("b", &["t"]), &two(), now).unwrap();
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
    group.leave("b", &two(), now);
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
        group.join(joining(id, &["t"]), &two(), start).unwrap();
        group.poll(id, start).unwrap();
    }
    group.polled("stuck", start);
    // Has both partitions, and holds on to them within a poll.
    assert!(!group.tick(&two(), at(44)));
    group.heartbeat("stuck", at(44)).unwrap();
    group.heartbeat("greedy", at(44)).unwrap();
    assert!(group.tick(&two(), at(45)));
    assert!(reason(&mut group, "silent", at(45)).contains("session.timeout.ms"));
    let mut now = 44;
    while now < 299 {
        now += 40.min(299 - now);
        group.heartbeat("stuck", at(now)).unwrap();
        group.heartbeat("greedy", at(now)).unwrap();
        assert!(!group.tick(&two(), at(now)), "{now}");
    }
    assert_eq!(group.next_deadline(), Some(at(300)));
    assert!(group.tick(&two(), at(300)));
    assert!(reason(&mut group, "stuck", at(300)).contains("did not poll"));
    assert!(group.poll("silent", at(300)).is_err());

    // Another member makes it give up what it holds; it neither does, nor leaves its poll.
    group.poll("greedy", at(300)).unwrap();
    group.join(joining("new", &["t"]), &two(), at(300)).unwrap();
    for now in (300..600).step_by(30) {
        for id in ["greedy", "new"] {
            group.poll(id, at(now)).unwrap();
        }
        assert!(!group.tick(&two(), at(now)));
    }
    assert!(group.tick(&two(), at(600)));
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
        group.join(with(fixed("x1", "one")), &two(), now).unwrap();
        group.join(with(fixed("b1", "two")), &two(), now).unwrap();
        let had = group.poll("x1", now).unwrap().assign;
        let other = group.poll("b1", now).unwrap().assign;
        assert_eq!((had.len(), other.len()), (1, 1));
        group.join(with(fixed("a2", "one")), &two(), now).unwrap();
        assert!(matches!(
            group.heartbeat("x1", now),
            Err(Error::FencedInstance { .. })
        ));
        assert_eq!(group.poll("a2", now).unwrap().assign, had);
        assert!(group.poll("b1", now).unwrap().revoke.is_empty());
        for id in ["a2", "b1"] {
            group.leave(id, &two(), now);
        }
    }
    group.join(joining("c", &["t"]), &two(), now).unwrap();
    let other = Joining {
        assignor: Assignor::Range,
        ..joining("d", &["t"])
    };
    let refused = group.join(other, &two(), now);
    assert!(matches!(refused, Err(Error::InconsistentAssignor { .. })));
}

#[test]
fn a_topic_created_again_is_owned_anew() {
    let now = Instant::now();
    let mut group = Group::new("g", now);
    group.join(joining("a", &["t"]), &two(), now).unwrap();
    group.poll("a", now).unwrap();
    assert!(may_commit(&group, "a", 1, 0));
    // Between two polls: offsets of the one before are none of the new one.
    assert!(group.topics_changed(&TopicCounts::new()));
    assert!(!may_commit(&group, "a", 1, 0));
    let one: TopicCounts = [("t".into(), 1)].into();
    assert!(group.topics_changed(&one));
    assert!(!may_commit(&group, "a", 1, 0));
    let told = group.poll("a", now).unwrap();
    assert_eq!((told.generation, &told.lost), (3, &parts("t", &[0, 1])));
    assert_eq!((&told.assign, told.revoke.len()), (&parts("t", &[0]), 0));
    assert!(may_commit(&group, "a", 3, 0) && !may_commit(&group, "a", 1, 0));
    assert!(group.poll("a", now).unwrap().lost.is_empty(), "told once");

    // Also where nobody subscribes to it any more, and its owner is still to give it up.
    group.subscribe("a", to(&["u"]), &one, now).unwrap();
    assert_eq!(group.poll("a", now).unwrap().revoke, parts("t", &[0]));
    assert!(group.topics_changed(&TopicCounts::new()));
    assert!(!may_commit(&group, "a", 3, 0));
    assert!(!group.revoked("a", &parts("t", &[0]), now).unwrap());
    let told = group.poll("a", now).unwrap();
    assert!(told.lost.is_empty(), "it gave it up by itself");
}

#[test]
fn who_gives_up_what_it_is_told_to_is_not_expelled_for_what_comes_after() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let counts: TopicCounts = [("t".into(), 1), ("u".into(), 1), ("v".into(), 1)].into();
    let mut group = Group::new("g", start);
    group
        .join(joining("a", &["t", "u", "v"]), &counts, start)
        .unwrap();
    assert_eq!(group.poll("a", start).unwrap().assign.len(), 3);
    let mut last = None;
    for (now, topics) in [(200, &["u", "v"][..]), (400, &["v"]), (600, &[])] {
        group.heartbeat("a", at(now)).unwrap();
        group.subscribe("a", to(topics), &counts, at(now)).unwrap();
        let told = group.poll("a", at(now)).unwrap().revoke;
        // It acknowledges what it was told by the poll before.
        if let Some(before) = last.replace(told) {
            group.revoked("a", &before, at(now)).unwrap();
        }
        assert!(!group.tick(&counts, at(now + 1)), "{now}");
    }
}

#[test]
fn a_rebalance_that_is_called_off_moves_nothing() {
    let now = Instant::now();
    let counts: TopicCounts = [("t".into(), 7)].into();
    for assignor in [Assignor::Sticky, Assignor::Range, Assignor::RoundRobin] {
        let with = |id: &str| Joining {
            assignor,
            ..joining(id, &["t"])
        };
        let mut group = Group::new("g", now);
        for id in ["a", "b", "c"] {
            group.join(with(id), &counts, now).unwrap();
        }
        for id in ["a", "b", "c"] {
            group.poll(id, now).unwrap();
        }
        // Two come and go before anybody gave up anything.
        for id in ["d", "e"] {
            group.join(with(id), &counts, now).unwrap();
        }
        assert_eq!(group.describe().state, GroupState::PreparingRebalance);
        for id in ["d", "e"] {
            group.leave(id, &counts, now);
        }
        assert_eq!(group.describe().state, GroupState::Stable, "{assignor}");
    }
}

/// Everybody polls until nobody has anything to give up.
fn settle(group: &mut Group, members: &[&str], now: Instant) {
    for id in members.iter().cycle().take(3 * members.len()) {
        let told = group.poll(id, now).unwrap().revoke;
        group.revoked(id, &told, now).unwrap();
    }
    for id in members {
        group.poll(id, now).unwrap();
    }
    assert_eq!(group.describe().state, GroupState::Stable);
}

#[test]
fn a_static_member_that_has_more_than_others_comes_back_to_all_of_it() {
    let now = Instant::now();
    let counts: TopicCounts = [("t".into(), 4)].into();
    let fixed = |id: &str| Joining {
        instance_id: Some(id[..1].into()),
        ..joining(id, &["t"])
    };
    let mut group = Group::new("g", now);
    for (joins, members) in [
        ("c1", &["c1"][..]),
        ("b1", &["c1", "b1"]),
        ("a1", &["c1", "b1", "a1"]),
    ] {
        group.join(fixed(joins), &counts, now).unwrap();
        settle(&mut group, members, now);
    }
    let owned = |group: &Group, id: &str| {
        let members = group.describe().members.into_iter();
        members
            .filter(|m| m.member_id.starts_with(id))
            .flat_map(|m| m.assignment)
            .collect::<BTreeSet<_>>()
    };
    let had = ["a", "b", "c"].map(|id| owned(&group, id));
    assert_eq!(had.each_ref().map(BTreeSet::len), [1, 1, 2]);
    group.join(fixed("c2"), &counts, now).unwrap();
    settle(&mut group, &["a1", "b1", "c2"], now);
    assert_eq!(["a", "b", "c"].map(|id| owned(&group, id)), had);
}
