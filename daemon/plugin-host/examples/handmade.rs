//! A plugin for tests that is written against the ABI without the SDK, and breaks its rules. Tests patch the name in its
//! header, which decides how it breaks them while it is loaded; the name of a connector decides for an instance.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidewater_plugin_api::abi::{
    Buf, Completion, HostVTable, Opcode, PluginHeader, PluginVTable, Slice, Status,
};
use tidewater_plugin_api::payload::{Create, Description};
use tidewater_plugin_api::{ConfigDef, ConnectorKind, ConnectorSpec};

#[used]
#[unsafe(link_section = ".tidewater.plugin")]
static HEADER: PluginHeader = PluginHeader::new("handmade", "9.9.9", "tidewater_plugin_v1_handmade", true);

/// The name as it stands in the file, which a test may have patched.
fn name() -> String {
    // SAFETY: a static, read as whatever the file holds instead of what the compiler has seen.
    let name = unsafe { std::ptr::read_volatile(&raw const HEADER.name) };
    PluginHeader::text(&name)
}

/// A table with an addition of a later minor version.
#[repr(C)]
struct Later {
    table: PluginVTable,
    addition: Option<unsafe extern "C" fn()>,
}

#[unsafe(export_name = "tidewater_plugin_v1_handmade")]
extern "C" fn entry(_host: *const HostVTable) -> *const PluginVTable {
    let mut table = PluginVTable {
        size: size_of::<PluginVTable>() as u32,
        abi_minor: 0,
        reserved: 0,
        describe: Some(describe),
        create: Some(create),
        submit: Some(submit),
        cancel: Some(cancel),
        destroy: Some(destroy),
    };
    match name().as_str() {
        "declines" => return std::ptr::null(),
        "small-table" => table.size -= 8,
        "no-submit" => table.submit = None,
        _ => {}
    }
    if name() == "later-minor" {
        table.size = size_of::<Later>() as u32;
        table.abi_minor = 7;
    }
    let later = Box::new(Later {
        table,
        addition: None,
    });
    let _ = later.addition;
    (&raw const *Box::leak(later)).cast()
}

unsafe extern "C" fn describe(reply: *mut Buf) -> u32 {
    let (status, answer) = match name().as_str() {
        "garbage-description" => (Status::Ok as u32, b"{\"name\": 3".to_vec()),
        "nameless-class" => (Status::Ok as u32, description("")),
        "silent-failure" => (77, Vec::new()),
        _ => (Status::Ok as u32, description("handmade-source")),
    };
    // SAFETY: the host gives room for a reply.
    unsafe { reply.write(Buf::from(answer)) };
    status
}

fn description(class: &str) -> Vec<u8> {
    let description = Description {
        name: "handmade".into(),
        version: "9.9.9".into(),
        sdk_version: "none".into(),
        connectors: vec![ConnectorSpec {
            class: class.into(),
            aliases: Vec::new(),
            kind: ConnectorKind::Source,
            version: "1".into(),
            documentation: "Breaks the rules.".into(),
            config: ConfigDef::new(),
            exactly_once: false,
        }],
    };
    serde_json::to_vec(&description).unwrap_or_default()
}

/// Operations that are never answered until the instance is destroyed.
struct Instance {
    conduct: String,
    kept: Mutex<Vec<Completion>>,
}

unsafe extern "C" fn create(args: Slice, instance: *mut *mut c_void, error: *mut Buf) -> u32 {
    // SAFETY: the host lends the arguments for this call.
    let create: Create = match serde_json::from_slice(unsafe { args.bytes() }) {
        Ok(create) => create,
        Err(_) => return Status::Unsupported as u32,
    };
    match create.connector.as_str() {
        "refuses" => {
            let answer = br#"{"kind":"config","message":"told to refuse"}"#.to_vec();
            // SAFETY: the host gives room for an error.
            unsafe { error.write(Buf::from(answer)) };
            Status::Error as u32
        }
        "null-instance" => Status::Ok as u32,
        _ => {
            let made = Box::new(Instance {
                conduct: create.connector,
                kept: Mutex::default(),
            });
            // SAFETY: the host gives room for the instance.
            unsafe { instance.write(Box::into_raw(made).cast()) };
            Status::Ok as u32
        }
    }
}

fn fire(completion: &Completion, status: u32, payload: Buf) {
    // SAFETY: the host's function; calling it more than once is what is tested, and harmless there.
    unsafe { (completion.done)(completion.ctx, status, payload) };
}

unsafe extern "C" fn submit(
    instance: *mut c_void,
    _operation: u64,
    opcode: u32,
    _payload: Buf,
    completion: Completion,
) {
    // SAFETY: the host uses an instance only until it destroys it.
    let instance = unsafe { &*instance.cast::<Instance>() };
    let ok = Status::Ok as u32;
    if matches!(
        Opcode::from_u32(opcode),
        Some(Opcode::Stop | Opcode::SourceStart | Opcode::ConnectorStart)
    ) {
        return fire(&completion, ok, Buf::EMPTY);
    }
    if opcode == Opcode::Metrics as u32 {
        return fire(&completion, Status::Unsupported as u32, Buf::EMPTY);
    }
    match instance.conduct.as_str() {
        "twice" => {
            fire(&completion, ok, Buf::EMPTY);
            fire(&completion, ok, Buf::from(b"again".to_vec()));
        }
        "late" => {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                fire(&completion, ok, Buf::from(b"late".to_vec()));
            });
        }
        "garbage-frame" => fire(&completion, ok, Buf::from(vec![0xa5; 300])),
        "cut-frame" => {
            let mut frame = tidewater_plugin_api::FrameBuilder::new().finish_vec();
            frame.truncate(40);
            fire(&completion, ok, Buf::from(frame));
        }
        "wild-frame" => {
            // A header that is right, and a number of records that is not.
            let mut frame = tidewater_plugin_api::FrameBuilder::new().finish_vec();
            frame[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
            fire(&completion, ok, Buf::from(frame));
        }
        "null-payload" => {
            // SAFETY: never sound; the host must not follow it.
            let payload = unsafe { Buf::from_raw(std::ptr::null(), 4096, std::ptr::null_mut(), None) };
            fire(&completion, ok, payload);
        }
        "unknown-status" => fire(&completion, 77, Buf::EMPTY),
        "later-error" => {
            let error = br#"{"kind":"rate_limited","message":"told to fail in a new way","until":12}"#;
            fire(&completion, Status::Error as u32, Buf::from(error.to_vec()));
        }
        "garbage-error" => fire(&completion, Status::Error as u32, Buf::from(b"oops".to_vec())),
        _ => instance
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(completion),
    }
}

// It never cancels: what is cancelled is answered at the end.
unsafe extern "C" fn cancel(_instance: *mut c_void, _operation: u64) {}

unsafe extern "C" fn destroy(instance: *mut c_void, _deadline_ms: u64, completion: Completion) {
    // SAFETY: the host destroys an instance once.
    let instance = unsafe { Box::from_raw(instance.cast::<Instance>()) };
    if instance.conduct == "never-ends" {
        // Neither the end nor what is in flight is ever answered.
        std::mem::forget(instance);
        return;
    }
    for kept in instance
        .kept
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        fire(&kept, Status::Cancelled as u32, Buf::EMPTY);
    }
    fire(&completion, Status::Ok as u32, Buf::EMPTY);
}
