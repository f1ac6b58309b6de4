//! What the host holds of an instance: a way into its thread's inbox.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::reply::Reply;

/// What the host tells an instance. The inbox has no bound of its own: the host has few operations of an instance in
/// flight at a time, and whoever cannot block cannot wait (invariant 6 is kept where batches are made).
pub(crate) enum Message {
    Submit(Operation),
    Cancel(u64),
    Destroy { deadline: Duration, reply: Reply },
}

/// Something to do, and the answer that is owed for it.
pub(crate) struct Operation {
    pub(crate) id: u64,
    pub(crate) opcode: u32,
    pub(crate) payload: Bytes,
    pub(crate) reply: Reply,
}

/// The host's handle.
pub(crate) struct Instance {
    inbox: UnboundedSender<Message>,
}

impl Instance {
    pub(crate) fn new(inbox: UnboundedSender<Message>) -> Self {
        Self { inbox }
    }

    /// Hands `message` to the thread. Where that has ended, the message is dropped, which answers it.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.inbox.send(message);
    }
}
