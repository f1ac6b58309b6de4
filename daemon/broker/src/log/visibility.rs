//! What readers may see of a log, and waiting for it to change.
//!
//! A value with a version, wakers of tasks that wait for the next version, and subscribers: queues in which a change
//! is noted, for tasks that wait for many logs at once ([`ready_queue`](crate::log::ready_queue)).
//!
//! Invariants:
//! - *No lost wake-up.* A task registers under the lock under which it finds the version it has seen; a change takes
//!   all wakers under that lock. So whoever looked before the change is woken by it, and whoever comes after sees it.
//! - *Cancelling is free.* Every waiter is woken by every change, so a waiter that goes takes no wake-up with it; its
//!   slot is given back when it is dropped.
//! - *No allocation per wait*: slots and the list of wakers under way are used again.
//! - Wakers are called with this lock released; when [`News`] is dropped, to be exact.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::log::ready_queue::{Member, Subscriber};
use crate::sync::Mutex;

pub(crate) struct Visibility<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    value: T,
    version: u64,
    waiters: Vec<Waiter>,
    /// The slots of `waiters` nobody has.
    free: Vec<usize>,
    subscribers: Vec<Subscriber>,
    /// An empty list for the wakers of the next change.
    spare: Vec<Waker>,
}

enum Waiter {
    Free,
    /// It was woken and has not asked again.
    Woken,
    Waiting(Waker),
}

/// A change: those who waited for it are woken when this is dropped. Drop it with as few locks held as can be.
pub(crate) struct News<'a, T> {
    visibility: &'a Visibility<T>,
    wakers: Vec<Waker>,
}

/// Ends when the version is another than the one seen.
pub(crate) struct Changed<'a, T> {
    visibility: &'a Visibility<T>,
    seen: u64,
    slot: Option<usize>,
}

impl<T: Copy + PartialEq> Visibility<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            inner: Mutex::new(Inner {
                value,
                version: 0,
                waiters: Vec::new(),
                free: Vec::new(),
                subscribers: Vec::new(),
                spare: Vec::new(),
            }),
        }
    }

    pub(crate) fn now(&self) -> T {
        self.inner.lock().value
    }

    /// The value and its version, for [`changed`](Self::changed).
    pub(crate) fn look(&self) -> (T, u64) {
        let inner = self.inner.lock();
        (inner.value, inner.version)
    }

    /// Waits until there is another version than `seen`.
    pub(crate) fn changed(&self, seen: u64) -> Changed<'_, T> {
        Changed {
            visibility: self,
            seen,
            slot: None,
        }
    }

    /// Sets the value; nobody is woken if it is the same.
    pub(crate) fn publish(&self, value: T) -> News<'_, T> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let mut wakers = Vec::new();
        if inner.value != value {
            inner.value = value;
            inner.version += 1;
            wakers = mem::take(&mut inner.spare);
            for waiter in &mut inner.waiters {
                if let Waiter::Waiting(_) = waiter
                    && let Waiter::Waiting(waker) = mem::replace(waiter, Waiter::Woken)
                {
                    wakers.push(waker);
                }
            }
            wakers.extend(inner.subscribers.iter().filter_map(Subscriber::notify));
            if wakers.is_empty() {
                inner.spare = mem::take(&mut wakers);
            }
        }
        drop(guard);
        News {
            visibility: self,
            wakers,
        }
    }

    /// Every change from now on is noted in the subscriber's queue. It should look at the value once after this.
    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        self.inner.lock().subscribers.push(subscriber);
    }

    pub(crate) fn unsubscribe(&self, member: &Arc<Member>) {
        self.inner
            .lock()
            .subscribers
            .retain(|subscriber| !Arc::ptr_eq(&subscriber.member, member));
    }
}

impl<T> Drop for News<'_, T> {
    fn drop(&mut self) {
        if self.wakers.is_empty() {
            return;
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        self.visibility.inner.lock().spare = mem::take(&mut self.wakers);
    }
}

impl<T> Future for Changed<'_, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.visibility.inner.lock();
        if inner.version != self.seen {
            return Poll::Ready(());
        }
        let slot = match self.slot {
            Some(slot) => slot,
            None => inner.slot(),
        };
        match &mut inner.waiters[slot] {
            Waiter::Waiting(waker) => waker.clone_from(context.waker()),
            other => *other = Waiter::Waiting(context.waker().clone()),
        }
        drop(inner);
        self.slot = Some(slot);
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut inner = self.visibility.inner.lock();
            let waiter = mem::replace(&mut inner.waiters[slot], Waiter::Free);
            inner.free.push(slot);
            drop(inner);
            // A waker's own code runs without the lock.
            drop(waiter);
        }
    }
}

impl<T> Inner<T> {
    fn slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.waiters.push(Waiter::Free);
            self.waiters.len() - 1
        })
    }
}
