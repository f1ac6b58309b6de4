//! Rest on demand: a task that is to pause finishes what is on its way, asks nothing more of its plugin, which it keeps,
//! and says when it rests.

use tokio::sync::watch;

/// The supervisor's half.
#[derive(Debug)]
pub struct PauseSwitch {
    wanted: watch::Sender<bool>,
    resting: watch::Receiver<bool>,
}

/// The task's half.
#[derive(Clone, Debug)]
pub struct Pause {
    wanted: watch::Receiver<bool>,
    resting: watch::Sender<bool>,
}

/// A switch and the task that it is for.
pub fn pause(wanted: bool) -> (PauseSwitch, Pause) {
    let (wanted, wanted_seen) = watch::channel(wanted);
    let (resting, resting_seen) = watch::channel(false);
    (
        PauseSwitch {
            wanted,
            resting: resting_seen,
        },
        Pause {
            wanted: wanted_seen,
            resting,
        },
    )
}

impl PauseSwitch {
    /// The task is to rest, or to go on.
    pub fn set(&self, wanted: bool) {
        self.wanted
            .send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    /// Whether it rests now; changes are seen by who waits for them.
    pub fn resting(&self) -> watch::Receiver<bool> {
        self.resting.clone()
    }
}

impl Pause {
    /// Whether the task is to rest.
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Ends once the task is to rest, or to go on, where it was the other way when this was last awaited. Never where
    /// nobody holds the switch any more.
    pub async fn changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends once the task may go on.
    pub async fn over(&mut self) {
        self.resting(true);
        if self.wanted.wait_for(|wanted| !wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.resting(false);
    }

    /// Sees whether the task rests.
    pub fn seen(&self) -> watch::Receiver<bool> {
        self.resting.subscribe()
    }

    /// The task says whether it rests.
    pub fn resting(&self, resting: bool) {
        self.resting
            .send_if_modified(|now| std::mem::replace(now, resting) != resting);
    }
}
