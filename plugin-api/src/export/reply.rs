//! A completion that fires exactly once, whatever becomes of the operation.

use crate::abi::{Buf, Completion, Status};
use crate::error::{Error, ErrorKind};

/// The answer that is owed for an operation. Dropped unanswered, it says that the operation was cancelled: so an
/// operation that dies in a queue, or with its thread, is answered too.
pub(crate) struct Reply(Option<Completion>);

impl Reply {
    pub(crate) fn new(completion: Completion) -> Self {
        Self(Some(completion))
    }

    pub(crate) fn ok(self, payload: Buf) {
        self.send(Status::Ok, payload);
    }

    pub(crate) fn error(self, error: &Error) {
        let status = match error.kind {
            ErrorKind::Panic => Status::Panic,
            _ => Status::Error,
        };
        self.send(status, error_payload(error));
    }

    pub(crate) fn cancelled(self) {
        drop(self);
    }

    pub(crate) fn send(mut self, status: Status, payload: Buf) {
        self.fire(status, payload);
    }

    fn fire(&mut self, status: Status, payload: Buf) {
        if let Some(Completion { ctx, done }) = self.0.take() {
            // SAFETY: taken, so fired once; the ABI allows any thread.
            unsafe { done(ctx, status as u32, payload) };
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.fire(Status::Cancelled, Buf::EMPTY);
    }
}

/// An error as it crosses.
pub(crate) fn error_payload(error: &Error) -> Buf {
    // A kind and a text always serialise.
    Buf::from(serde_json::to_vec(error).unwrap_or_default())
}
