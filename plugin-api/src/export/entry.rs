//! The functions of the vtable. They run on the host's threads, so they hand over and return.

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use super::host::Identity;
use super::instance::{Instance, Message, Operation};
use super::panics::{catch, install_hook};
use super::perform::Blueprint;
use super::reply::{Reply, error_payload};
use super::{Class, Plugin, host, log, thread};
use crate::abi::{
    ABI_MINOR, Buf, Completion, HostVTable, PluginHeader, PluginVTable, SDK_VERSION, Slice, Status,
};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{Create, Description};

struct Table<P>(std::marker::PhantomData<P>);

impl<P: Plugin> Table<P> {
    const VTABLE: &'static PluginVTable = &PluginVTable {
        size: size_of::<PluginVTable>() as u32,
        abi_minor: ABI_MINOR,
        reserved: 0,
        describe: Some(describe::<P>),
        create: Some(create::<P>),
        submit: Some(submit),
        cancel: Some(cancel),
        destroy: Some(destroy),
    };
}

/// What the exported function does: takes the host's table, gives the plugin's.
///
/// # Safety
/// `table` must be null or the host's, valid until the process ends.
#[doc(hidden)]
pub unsafe fn entry<P: Plugin>(table: *const HostVTable) -> *const PluginVTable {
    // Keeps the header: a linker that sees no use of its section would leave it out.
    std::hint::black_box(P::header());
    // SAFETY: the caller's promise.
    if unsafe { host::attach(table) }.is_err() {
        return ptr::null();
    }
    let prepared = catch(|| {
        install_hook();
        log::install();
    });
    match prepared {
        Ok(()) => Table::<P>::VTABLE,
        Err(_) => ptr::null(),
    }
}

/// The plugin's classes. The first call runs the author's code.
fn classes<P: Plugin>() -> Result<&'static [Class]> {
    catch(|| P::classes().get_or_init(P::make_classes))
        .map(Vec::as_slice)
        .map_err(|panic| panic.error("spec"))
}

/// Writes an error where the host has made room for it, and answers its status.
///
/// # Safety
/// `out` must be valid for a write.
unsafe fn fail(error: &Error, out: *mut Buf) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { out.write(error_payload(error)) };
    let status = match error.kind {
        ErrorKind::Panic => Status::Panic,
        _ => Status::Error,
    };
    status as u32
}

unsafe extern "C" fn describe<P: Plugin>(reply: *mut Buf) -> u32 {
    let described = classes::<P>().and_then(|classes| {
        let header = P::header();
        let description = Description {
            name: PluginHeader::text(&header.name),
            version: PluginHeader::text(&header.version),
            sdk_version: SDK_VERSION.to_owned(),
            connectors: classes.iter().map(|class| class.spec.clone()).collect(),
        };
        serde_json::to_vec(&description)
            .map_err(|error| Error::from_source(ErrorKind::Fatal, "cannot describe the plugin", &error))
    });
    match described {
        Ok(json) => {
            // SAFETY: the ABI has the host give room for a reply.
            unsafe { reply.write(Buf::from(json)) };
            Status::Ok as u32
        }
        // SAFETY: as above.
        Err(error) => unsafe { fail(&error, reply) },
    }
}

unsafe extern "C" fn create<P: Plugin>(args: Slice, instance: *mut *mut c_void, error: *mut Buf) -> u32 {
    // SAFETY: the ABI has the host lend the arguments for this call.
    let args = unsafe { args.bytes() };
    // The author's code does not run here, but a fault of the SDK must not unwind into the host either.
    let created = catch(|| create_instance::<P>(args)).unwrap_or_else(|panic| Err(panic.error("create")));
    match created {
        Ok(created) => {
            // SAFETY: the ABI has the host give room for the instance.
            unsafe { instance.write(Box::into_raw(Box::new(created)).cast()) };
            Status::Ok as u32
        }
        // SAFETY: the ABI has the host give room for the error.
        Err(cause) => unsafe { fail(&cause, error) },
    }
}

fn create_instance<P: Plugin>(args: &[u8]) -> Result<Instance> {
    log::refresh();
    let create: Create = serde_json::from_slice(args).map_err(|error| {
        Error::from_source(
            ErrorKind::Fatal,
            "the host asks for an instance that is not understood",
            &error,
        )
    })?;
    let class = classes::<P>()?
        .iter()
        .find(|class| class.spec.class == create.class && class.spec.kind == create.kind)
        .ok_or_else(|| Error::fatal(format!("the plugin has no class {:?}", create.class)))?;
    let identity = Identity {
        connector: create.connector.clone(),
        task: create.task,
    };
    thread::spawn(Blueprint::new(class, create), identity)
}

/// The instance behind the host's pointer.
///
/// # Safety
/// `instance` must have come from `create` and not have been destroyed.
unsafe fn borrow<'a>(instance: *mut c_void) -> &'a Instance {
    // SAFETY: the caller's promise; `create` made it of a `Box<Instance>`.
    unsafe { &*instance.cast::<Instance>() }
}

unsafe extern "C" fn submit(
    instance: *mut c_void,
    operation: u64,
    opcode: u32,
    payload: Buf,
    completion: Completion,
) {
    let reply = Reply::new(completion);
    let _ = catch(move || {
        log::refresh();
        // SAFETY: the ABI has the host use an instance only until it destroys it.
        unsafe { borrow(instance) }.send(Message::Submit(Operation {
            id: operation,
            opcode,
            payload: payload.into_bytes(),
            reply,
        }));
    });
}

unsafe extern "C" fn cancel(instance: *mut c_void, operation: u64) {
    let _ = catch(|| {
        // SAFETY: as in `submit`.
        unsafe { borrow(instance) }.send(Message::Cancel(operation));
    });
}

unsafe extern "C" fn destroy(instance: *mut c_void, deadline_ms: u64, completion: Completion) {
    let reply = Reply::new(completion);
    let _ = catch(move || {
        // SAFETY: the ABI has the host destroy an instance once and not use it afterwards.
        let instance = unsafe { Box::from_raw(instance.cast::<Instance>()) };
        instance.send(Message::Destroy {
            deadline: Duration::from_millis(deadline_ms),
            reply,
        });
    });
}
