//! Which of many partitions have news: one queue for one waiting task, however many partitions it waits for.
//!
//! A partition that changes puts its member into the queue, unless it is there already, so the queue is never longer
//! than there are members, and a change costs the same whether ten partitions are waited for or ten thousand.
//!
//! Invariants:
//! - A member is in the queue if and only if its `queued` is set, or about to be put in by whoever set it.
//! - `queued` is reset before the caller of [`poll_pop`](ReadyQueue::poll_pop) looks at the partition. So a change it does not
//!   see puts the member in again: no news is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicBool, Mutex, Ordering};

#[derive(Default)]
pub(crate) struct ReadyQueue {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Arc<Member>>,
    waker: Option<Waker>,
}

/// A partition in a [`ReadyQueue`].
pub(crate) struct Member {
    /// What [`ReadyQueue::poll_pop`] answers.
    pub(crate) token: u64,
    queued: AtomicBool,
}

/// What a partition keeps of a queue it reports to.
pub(crate) struct Subscriber {
    queue: Arc<ReadyQueue>,
    pub(crate) member: Arc<Member>,
}

impl Member {
    pub(crate) fn new(token: u64) -> Arc<Self> {
        Arc::new(Self {
            token,
            queued: AtomicBool::new(false),
        })
    }
}

impl Subscriber {
    pub(crate) fn new(queue: Arc<ReadyQueue>, member: Arc<Member>) -> Self {
        Self { queue, member }
    }

    /// There are news; answers who is to be woken.
    pub(crate) fn notify(&self) -> Option<Waker> {
        self.queue.push(&self.member)
    }
}

impl ReadyQueue {
    /// Puts a member at the end, unless it is in already; answers who is to be woken.
    pub(crate) fn push(&self, member: &Arc<Member>) -> Option<Waker> {
        if member.queued.swap(true, Ordering::SeqCst) {
            return None;
        }
        let mut inner = self.inner.lock();
        inner.ready.push_back(Arc::clone(member));
        inner.waker.take()
    }

    /// Takes the first member's token; registers the task if there is none. One task waits at a time: the last to
    /// ask. The caller looks at the partition after this, never before.
    pub(crate) fn poll_pop(&self, context: &Context<'_>) -> Poll<u64> {
        let member = {
            let mut inner = self.inner.lock();
            let Some(member) = inner.ready.pop_front() else {
                match &mut inner.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                return Poll::Pending;
            };
            member
        };
        member.queued.store(false, Ordering::SeqCst);
        Poll::Ready(member.token)
    }
}
