//! What a plugin may call. These functions run on the plugin's threads, within the author's code: they neither panic nor
//! wait for anybody.

// The boundary: every `unsafe` block says why it is sound.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidewater_plugin_api::abi::{ABI_MINOR, Buf, HostVTable, LogEvent, MetricKind, Slice, Status};

use crate::log;
use crate::metric::Metrics;

/// What the host keeps for one plugin. It lives as long as the process, since the plugin does.
pub(crate) struct HostContext {
    pub(crate) plugin: String,
    pub(crate) metrics: Metrics,
}

impl HostContext {
    pub(crate) fn new(plugin: String) -> &'static Self {
        Box::leak(Box::new(Self {
            plugin,
            metrics: Metrics::default(),
        }))
    }

    /// The table that the plugin gets.
    pub(crate) fn table(&'static self) -> &'static HostVTable {
        Box::leak(Box::new(HostVTable {
            size: size_of::<HostVTable>() as u32,
            abi_minor: ABI_MINOR,
            reserved: 0,
            ctx: std::ptr::from_ref(self).cast_mut().cast(),
            log: write_log,
            log_max_level,
            metric_register,
            metric_record,
            call,
        }))
    }
}

/// Runs `f`; a panic, which would be a fault of the host, stays here.
fn guarded<R>(otherwise: R, f: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(otherwise)
}

/// The context behind `ctx`.
///
/// # Safety
/// `ctx` must come from [`HostContext::table`].
unsafe fn context(ctx: *mut c_void) -> &'static HostContext {
    // SAFETY: the caller's promise; the context is never freed, and only ever shared.
    unsafe { &*ctx.cast::<HostContext>() }
}

unsafe extern "C" fn write_log(ctx: *mut c_void, event: *const LogEvent) {
    guarded((), || {
        // SAFETY: the ABI has the plugin give back its `ctx`, and lend the event for this call. All of this minor
        // version's fields are there: they are the first version's.
        let (context, event) = unsafe { (context(ctx), &*event) };
        // SAFETY: as above.
        let [target, message, fields, connector] = unsafe {
            [
                event.target.bytes(),
                event.message.bytes(),
                event.fields.bytes(),
                event.connector.bytes(),
            ]
        };
        log::write(&log::PluginEvent {
            plugin: &context.plugin,
            level: event.level,
            target: &String::from_utf8_lossy(target),
            message: &String::from_utf8_lossy(message),
            fields,
            connector: &String::from_utf8_lossy(connector),
            task: u32::try_from(event.task).ok(),
        });
    });
}

unsafe extern "C" fn log_max_level(_ctx: *mut c_void) -> u32 {
    guarded(0, log::max_level)
}

unsafe extern "C" fn metric_register(ctx: *mut c_void, name: Slice, kind: u32) -> u32 {
    guarded(u32::MAX, || {
        // SAFETY: the ABI has the plugin give back its `ctx`, and lend the name for this call.
        let (context, name) = unsafe { (context(ctx), name.bytes()) };
        let name = String::from_utf8_lossy(name);
        context
            .metrics
            .register(&name, kind == MetricKind::Counter as u32)
    })
}

unsafe extern "C" fn metric_record(ctx: *mut c_void, id: u32, value: f64) {
    guarded((), || {
        // SAFETY: the ABI has the plugin give back its `ctx`.
        unsafe { context(ctx) }.metrics.record(id, value);
    });
}

unsafe extern "C" fn call(_ctx: *mut c_void, _opcode: u32, _payload: Slice, _reply: *mut Buf) -> u32 {
    Status::Unsupported as u32
}
