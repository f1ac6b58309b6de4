//! Opens a plugin's library, once and for good, and asks it what it is.

// The boundary: every `unsafe` block says why it is sound.
#![allow(unsafe_code)]

use std::error::Error as _;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use tidewater_plugin_api::Error;
use tidewater_plugin_api::abi::{
    ABI_MAJOR, ABI_MINOR, Buf, Completion, Entry, PluginVTable, Slice, Status, Versioned as _, read_prefix,
};
use tidewater_plugin_api::payload::Description;

use crate::host_table::HostContext;
use crate::inspect::Inspected;
use crate::load_error::LoadError;

/// A plugin's functions, all there.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    /// The minor version of the ABI that the plugin knows.
    pub(crate) abi_minor: u16,
    pub(crate) describe: unsafe extern "C" fn(*mut Buf) -> u32,
    pub(crate) create: unsafe extern "C" fn(Slice, *mut *mut c_void, *mut Buf) -> u32,
    pub(crate) submit: unsafe extern "C" fn(*mut c_void, u64, u32, Buf, Completion),
    pub(crate) cancel: unsafe extern "C" fn(*mut c_void, u64),
    pub(crate) destroy: unsafe extern "C" fn(*mut c_void, u64, Completion),
}

/// A plugin that is loaded, and stays so until the process ends: threads of it may run at any time, and thread-local
/// destructors of it after that.
pub(crate) struct Plugin {
    /// The file that was found, not the copy that is open.
    pub(crate) path: PathBuf,
    pub(crate) name: Arc<str>,
    pub(crate) functions: Functions,
    pub(crate) context: &'static HostContext,
    /// Counts instances left behind, for the whole registry.
    abandoned: Arc<AtomicU64>,
}

impl Plugin {
    /// Opens `copy` and asks it what it is.
    pub(crate) fn load(
        path: &Path,
        copy: &Path,
        inspected: &Inspected,
        abandoned: Arc<AtomicU64>,
    ) -> Result<(Self, Description), LoadError> {
        // SAFETY: opening runs the library's initialisers. Its header says that it is a plugin made with the SDK for
        // this very target, whose initialisers are those of Rust's own runtime.
        let library =
            unsafe { Library::open(Some(copy), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| LoadError::Open {
                reason: reason(&error),
            })?;
        // SAFETY: the header's entry has this type in every minor version of this major version of the ABI.
        let entry = unsafe { library.get::<Entry>(inspected.entry.as_bytes()) }.map(|symbol| *symbol);
        // Never unloaded, whatever comes: initialisers have run.
        std::mem::forget(library);
        let entry = entry.map_err(|error| LoadError::MissingSymbol {
            symbol: inspected.entry.clone(),
            reason: reason(&error),
        })?;

        let context = HostContext::new(inspected.name.clone());
        // SAFETY: the table and its context are never freed.
        let table = unsafe { entry(context.table()) };
        if table.is_null() {
            return Err(LoadError::Declined {
                major: ABI_MAJOR,
                minor: ABI_MINOR,
            });
        }
        let functions = functions(table)?;
        let description = describe(&functions)?;
        let plugin = Self {
            path: path.to_owned(),
            name: description.name.as_str().into(),
            functions,
            context,
            abandoned,
        };
        Ok((plugin, description))
    }

    /// Counts an instance that is left behind.
    pub(crate) fn count_abandoned(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }
}

/// libloading's own words name the call; the linker's reason is their cause.
fn reason(error: &libloading::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

fn functions(table: *const PluginVTable) -> Result<Functions, LoadError> {
    let bad = |detail: String| LoadError::BadVtable { detail };
    if !table.is_aligned() {
        return Err(bad("it is not aligned".into()));
    }
    let absent = PluginVTable {
        size: 0,
        abi_minor: 0,
        reserved: 0,
        describe: None,
        create: None,
        submit: None,
        cancel: None,
        destroy: None,
    };
    // SAFETY: the entry gave it, and it is aligned; the ABI has it be as long as it states.
    let table = unsafe { read_prefix(table, absent) }.map_err(|size| {
        bad(format!(
            "it has {size} bytes, at least {} are needed",
            PluginVTable::MIN_SIZE
        ))
    })?;
    let missing = |name: &str| bad(format!("it has no {name}"));
    Ok(Functions {
        abi_minor: table.abi_minor,
        describe: table.describe.ok_or_else(|| missing("describe"))?,
        create: table.create.ok_or_else(|| missing("create"))?,
        submit: table.submit.ok_or_else(|| missing("submit"))?,
        cancel: table.cancel.ok_or_else(|| missing("cancel"))?,
        destroy: table.destroy.ok_or_else(|| missing("destroy"))?,
    })
}

fn describe(functions: &Functions) -> Result<Description, LoadError> {
    let mut reply = Buf::EMPTY;
    // SAFETY: there is room for the reply.
    let status = unsafe { (functions.describe)(&raw mut reply) };
    let payload = reply.into_bytes();
    if Status::from_u32(status) == Some(Status::Ok) {
        let description: Description =
            serde_json::from_slice(&payload).map_err(|error| LoadError::BadDescription {
                detail: error.to_string(),
            })?;
        return match description.connectors.iter().find(|spec| spec.class.is_empty()) {
            Some(_) => Err(LoadError::BadDescription {
                detail: "a class has no name".into(),
            }),
            None => Ok(description),
        };
    }
    let message = serde_json::from_slice::<Error>(&payload).map_or_else(
        |_| format!("status {status}, without a reason that is understood"),
        |error| error.message,
    );
    Err(LoadError::Describe { message })
}
