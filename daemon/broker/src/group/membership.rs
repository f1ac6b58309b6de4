//! A consumer's place in its group: its member id, and the task that sends heartbeats for it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::group::consumer::options::ConsumerOptions;
use crate::group::coordinator::member::Joining;
use crate::group::registry::Registry;
use crate::group::subscription::Subscription;

/// Ended by dropping it: a dynamic member leaves the group at once, a static one may come back within its session.
pub(crate) struct Membership {
    registry: Arc<Registry>,
    pub(crate) group: Arc<str>,
    pub(crate) member_id: Arc<str>,
    pub(crate) subscription: Subscription,
    /// The generation it was last told of.
    pub(crate) generation: i32,
    /// Notified when there may be something to do.
    pub(crate) changed: Arc<Notify>,
    is_static: bool,
    heartbeats: JoinHandle<()>,
}

/// A poll under way; ended when dropped.
pub(crate) struct Polling {
    registry: Arc<Registry>,
    group: Arc<str>,
    pub(crate) member_id: Option<Arc<str>>,
}

impl Membership {
    pub(crate) fn join(
        registry: &Arc<Registry>,
        options: &ConsumerOptions,
        subscription: Subscription,
    ) -> Result<Self> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(Error::NoRuntime {
                group: options.group.clone(),
            });
        };
        let group: Arc<str> = options.group.as_str().into();
        let member_id: Arc<str> = format!("{}-{}", options.client_id, Uuid::new_v4()).into();
        let changed = registry.join(
            &group,
            Joining {
                member_id: Arc::clone(&member_id),
                instance_id: options.group_instance_id.as_deref().map(Arc::from),
                client_id: options.client_id.as_str().into(),
                subscription: subscription.clone(),
                assignor: options.assignor,
                session_timeout: options.session_timeout,
                max_poll_interval: options.max_poll_interval,
            },
        )?;
        let interval = options.heartbeat_interval;
        let (alive, name, id) = (Arc::clone(registry), Arc::clone(&group), Arc::clone(&member_id));
        // Ends when the member is expelled, which its consumer learns when it polls.
        let heartbeats = runtime.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if alive.heartbeat(&name, &id).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            registry: Arc::clone(registry),
            group,
            member_id,
            subscription,
            generation: 0,
            changed,
            is_static: options.group_instance_id.is_some(),
            heartbeats,
        })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.heartbeats.abort();
        if !self.is_static {
            self.registry.leave(&self.group, &self.member_id);
        }
    }
}

impl Polling {
    pub(crate) fn new(registry: &Arc<Registry>, group: &str) -> Self {
        Self {
            registry: Arc::clone(registry),
            group: group.into(),
            member_id: None,
        }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if let Some(member) = &self.member_id {
            self.registry.polled(&self.group, member);
        }
    }
}
