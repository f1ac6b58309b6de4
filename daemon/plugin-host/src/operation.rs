//! What is in flight for all instances, and the completions. A completion carries a number and no pointer: one that comes
//! late, or twice, finds nothing and does no harm (invariant 7).

// The boundary: every `unsafe` block says why it is sound.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewater_plugin_api::abi::{Buf, Completion};
use tokio::sync::oneshot;

/// What a plugin answered.
pub(crate) struct Answer {
    pub(crate) status: u32,
    pub(crate) payload: Bytes,
}

#[derive(Default)]
struct InFlight {
    last: usize,
    waiting: HashMap<usize, oneshot::Sender<Answer>>,
}

static IN_FLIGHT: LazyLock<Mutex<InFlight>> = LazyLock::new(Mutex::default);

/// How many operations plugins still owe an answer, in this process. Not zero for long, unless a plugin hangs.
pub fn operations_in_flight() -> usize {
    IN_FLIGHT.lock().waiting.len()
}

/// A completion for a plugin to fire, and where its answer arrives.
pub(crate) fn expect_answer() -> (Completion, oneshot::Receiver<Answer>) {
    let (sender, receiver) = oneshot::channel();
    let mut table = IN_FLIGHT.lock();
    table.last += 1;
    let key = table.last;
    table.waiting.insert(key, sender);
    let completion = Completion {
        ctx: std::ptr::without_provenance_mut(key),
        done,
    };
    (completion, receiver)
}

unsafe extern "C" fn done(ctx: *mut c_void, status: u32, payload: Buf) {
    // A panic here would unwind into the plugin.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let waiting = IN_FLIGHT.lock().waiting.remove(&ctx.addr());
        let Some(sender) = waiting else {
            tracing::error!("a plugin has completed an operation twice; its fault is ignored");
            return;
        };
        // Nobody may be waiting any more; the payload is then released.
        let _ = sender.send(Answer {
            status,
            payload: payload.into_bytes(),
        });
    }));
}
