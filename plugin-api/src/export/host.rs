//! What the plugin may call: the host's table, once it is attached.

use std::cell::OnceCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, OnceLock};

use tracing::Level;

use crate::abi::{Buf, HostVTable, LogEvent, MetricKind, Slice, Status, read_prefix};

static HOST: OnceLock<HostVTable> = OnceLock::new();

/// Whose thread this is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) connector: String,
    pub(crate) task: Option<u32>,
}

thread_local! {
    static IDENTITY: OnceCell<Arc<Identity>> = const { OnceCell::new() };
}

/// Marks the current thread as one of an instance's, for good.
pub(crate) fn adopt_thread(identity: Arc<Identity>) {
    let _ = IDENTITY.try_with(|cell| cell.set(identity));
}

/// Whose thread this is; none where it is not an instance's.
pub(crate) fn identity() -> Option<Arc<Identity>> {
    IDENTITY.try_with(|cell| cell.get().cloned()).ok().flatten()
}

/// Takes the host's table; the first one stays. `Err` is the size of one that is too small.
///
/// # Safety
/// `table` must be null or point to a table that is valid until the process ends.
pub(crate) unsafe fn attach(table: *const HostVTable) -> Result<(), usize> {
    if table.is_null() {
        return Err(0);
    }
    // SAFETY: the caller's promise.
    let table = unsafe { read_prefix(table, absent()) }?;
    let _ = HOST.set(table);
    Ok(())
}

/// A host that offers nothing.
fn absent() -> HostVTable {
    unsafe extern "C" fn log(_: *mut c_void, _: *const LogEvent) {}
    unsafe extern "C" fn log_max_level(_: *mut c_void) -> u32 {
        0
    }
    unsafe extern "C" fn metric_register(_: *mut c_void, _: Slice, _: u32) -> u32 {
        u32::MAX
    }
    unsafe extern "C" fn metric_record(_: *mut c_void, _: u32, _: f64) {}
    unsafe extern "C" fn call(_: *mut c_void, _: u32, _: Slice, _: *mut Buf) -> u32 {
        Status::Unsupported as u32
    }
    HostVTable {
        size: 0,
        abi_minor: 0,
        reserved: 0,
        ctx: ptr::null_mut(),
        log,
        log_max_level,
        metric_register,
        metric_record,
        call,
    }
}

/// The most verbose level the host wants, 0 for none.
pub(crate) fn max_level() -> u32 {
    HOST.get().map_or(0, |host| {
        // SAFETY: the table is valid until the process ends, and any thread may call.
        unsafe { (host.log_max_level)(host.ctx) }
    })
}

/// The number of a level in the ABI.
pub(crate) fn level_number(level: Level) -> u32 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// Sends an event to the host's log, in the name of the thread's instance.
pub(crate) fn log(level: Level, target: &str, message: &str, fields: &[u8]) {
    let Some(host) = HOST.get() else {
        return;
    };
    let identity = identity();
    let event = LogEvent {
        size: size_of::<LogEvent>() as u32,
        level: level_number(level),
        target: Slice::new(target.as_bytes()),
        message: Slice::new(message.as_bytes()),
        fields: Slice::new(fields),
        connector: Slice::new(identity.as_ref().map_or(&[], |id| id.connector.as_bytes())),
        task: identity.as_ref().and_then(|id| id.task).map_or(-1, i64::from),
    };
    // SAFETY: the table is valid until the process ends, any thread may call, and what the event lends lives on.
    unsafe { (host.log)(host.ctx, &raw const event) };
}

/// The id of the metric `name`; none outside of a host or where it takes no more.
pub(crate) fn register_metric(name: &str, kind: MetricKind) -> Option<u32> {
    let host = HOST.get()?;
    // SAFETY: as in `log`.
    let id = unsafe { (host.metric_register)(host.ctx, Slice::new(name.as_bytes()), kind as u32) };
    (id != u32::MAX).then_some(id)
}

/// Adds to a counter, or sets a gauge.
pub(crate) fn record_metric(id: u32, value: f64) {
    if let Some(host) = HOST.get() {
        // SAFETY: as in `log`.
        unsafe { (host.metric_record)(host.ctx, id, value) };
    }
}
