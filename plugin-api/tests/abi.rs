//! The ABI's layouts, byte for byte: a change here breaks every plugin that has been built.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tidewater_plugin_api::abi::{
    ABI_MAJOR, Buf, Completion, HostVTable, LogEvent, Opcode, PluginHeader, PluginVTable, Slice, Status,
    Versioned as _, read_prefix,
};

macro_rules! layout {
    ($type:ty, $size:expr, { $($field:ident: $offset:expr),* $(,)? }) => {{
        $(assert_eq!(offset_of!($type, $field), $offset, concat!(stringify!($type), ".", stringify!($field)));)*
        assert_eq!(size_of::<$type>(), $size, stringify!($type));
        assert_eq!(align_of::<$type>(), 8, stringify!($type));
    }};
}

#[test]
#[cfg(target_pointer_width = "64")]
fn layouts_are_what_plugins_have_been_built_with() {
    assert_eq!(ABI_MAJOR, 1, "with another major version, these may change");
    layout!(PluginHeader, 320, {
        magic: 0, header_size: 8, abi_major: 12, abi_minor: 14, required_features: 16, panic_unwind: 24, ptr_width: 25,
        reserved: 26, sdk_version: 32, target: 64, name: 128, version: 192, entry: 224,
    });
    layout!(Slice, 16, { ptr: 0, len: 8 });
    assert_eq!((size_of::<Buf>(), align_of::<Buf>()), (32, 8));
    layout!(Completion, 16, { ctx: 0, done: 8 });
    layout!(LogEvent, 80, { size: 0, level: 4, target: 8, message: 24, fields: 40, connector: 56, task: 72 });
    layout!(HostVTable, 56, {
        size: 0, abi_minor: 4, reserved: 6, ctx: 8, log: 16, log_max_level: 24, metric_register: 32, metric_record: 40,
        call: 48,
    });
    layout!(PluginVTable, 48, {
        size: 0, abi_minor: 4, reserved: 6, describe: 8, create: 16, submit: 24, cancel: 32, destroy: 40,
    });
    assert_eq!((HostVTable::MIN_SIZE, PluginVTable::MIN_SIZE), (32, 48));
}

#[test]
fn numbers_are_what_plugins_have_been_built_with() {
    use Opcode::{
        AlterOffsets, Close, Commit, ConnectorStart, ConnectorStop, Flush, Metrics, Open, Poll, Put,
        SinkStart, SourceStart, Stop, TaskConfigs, Validate,
    };
    let known = [
        (1, Validate),
        (2, ConnectorStart),
        (3, TaskConfigs),
        (4, ConnectorStop),
        (5, AlterOffsets),
        (16, SourceStart),
        (17, Poll),
        (18, Commit),
        (32, SinkStart),
        (33, Open),
        (34, Put),
        (35, Flush),
        (36, Close),
        (48, Stop),
        (49, Metrics),
    ];
    for (number, opcode) in known {
        assert_eq!((opcode as u32, Opcode::from_u32(number)), (number, Some(opcode)));
    }
    let found = (0..100_000)
        .filter(|number| Opcode::from_u32(*number).is_some())
        .count();
    assert_eq!(found, known.len());
    let statuses = [
        Status::Ok,
        Status::Error,
        Status::Cancelled,
        Status::Panic,
        Status::Unsupported,
    ];
    for (number, status) in (0..).zip(statuses) {
        assert_eq!((status as u32, Status::from_u32(number)), (number, Some(status)));
    }
    assert_eq!(Status::from_u32(5), None);
}

/// A `Buf` counts its releases.
struct Owner(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_buf_is_released_once_with_the_last_of_its_bytes_on_any_thread() {
    let released = Arc::new(AtomicUsize::new(0));
    let buf = Buf::from_owner(Owner(vec![7; 1000], released.clone()));
    let bytes = buf.into_bytes();
    let part = bytes.slice(10..20);
    drop(bytes);
    assert_eq!(released.load(Ordering::SeqCst), 0, "a part is still held");
    std::thread::spawn(move || assert_eq!(part, [7; 10].as_slice()))
        .join()
        .expect("it does not panic");
    assert_eq!(released.load(Ordering::SeqCst), 1);
    drop(Buf::from_owner(Owner(Vec::new(), released.clone())));
    assert_eq!(released.load(Ordering::SeqCst), 2, "one that nobody took");
    drop(Buf::EMPTY);
    assert!(Buf::EMPTY.into_bytes().is_empty());
    let shared = Bytes::from(vec![1, 2, 3]);
    assert_eq!(
        Buf::from(shared.clone()).into_bytes().as_ptr(),
        shared.as_ptr(),
        "nothing is copied"
    );
}

#[test]
fn a_panic_in_a_release_stays_where_it_is() {
    struct Angry;
    impl AsRef<[u8]> for Angry {
        fn as_ref(&self) -> &[u8] {
            b"angry"
        }
    }
    impl Drop for Angry {
        fn drop(&mut self) {
            panic!("told to panic");
        }
    }
    drop(Buf::from_owner(Angry).into_bytes());
}

unsafe extern "C" fn describe(_: *mut Buf) -> u32 {
    11
}

unsafe extern "C" fn describe_absent(_: *mut Buf) -> u32 {
    22
}

fn table(describe: unsafe extern "C" fn(*mut Buf) -> u32) -> PluginVTable {
    PluginVTable {
        size: size_of::<PluginVTable>() as u32,
        abi_minor: 0,
        reserved: 0,
        describe: Some(describe),
        create: None,
        submit: None,
        cancel: None,
        destroy: None,
    }
}

#[test]
fn tables_of_other_minor_versions_are_read() {
    #[repr(C)]
    struct Later {
        table: PluginVTable,
        addition: [*const c_void; 4],
    }
    let mut later = Later {
        table: table(describe),
        addition: [std::ptr::dangling(); 4],
    };
    later.table.size = size_of::<Later>() as u32;
    later.table.abi_minor = 3;
    // SAFETY: `later` is as long as it states.
    let read = unsafe { read_prefix((&raw const later).cast::<PluginVTable>(), table(describe_absent)) };
    let read = read.expect("a later one begins as this one does");
    assert_eq!(read.abi_minor, 3);
    // SAFETY: it takes anything.
    assert_eq!(
        unsafe { read.describe.expect("it is there")(std::ptr::null_mut()) },
        11
    );

    let mut small = table(describe);
    for size in [0, 8, 47] {
        small.size = size;
        // SAFETY: `small` is longer than it states.
        let read = unsafe { read_prefix(&raw const small, table(describe_absent)) };
        assert_eq!(read.err(), Some(size as usize));
    }
}

#[test]
fn an_earlier_host_offers_less() {
    unsafe extern "C" fn log(_: *mut c_void, _: *const LogEvent) {}
    unsafe extern "C" fn level(_: *mut c_void) -> u32 {
        5
    }
    unsafe extern "C" fn register(_: *mut c_void, _: Slice, kind: u32) -> u32 {
        kind
    }
    unsafe extern "C" fn absent_register(_: *mut c_void, _: Slice, _: u32) -> u32 {
        u32::MAX
    }
    unsafe extern "C" fn record(_: *mut c_void, _: u32, _: f64) {}
    unsafe extern "C" fn call(_: *mut c_void, _: u32, _: Slice, _: *mut Buf) -> u32 {
        4
    }
    let host = |size: usize, metric_register| HostVTable {
        size: size as u32,
        abi_minor: 0,
        reserved: 0,
        ctx: std::ptr::null_mut(),
        log,
        log_max_level: level,
        metric_register,
        metric_record: record,
        call,
    };
    let register_of = |size: usize| {
        let table = host(size, register);
        // SAFETY: `table` is longer than it states.
        let read =
            unsafe { read_prefix(&raw const table, host(0, absent_register)) }.expect("it is large enough");
        // SAFETY: it takes anything.
        unsafe { (read.metric_register)(std::ptr::null_mut(), Slice::new(b""), 1) }
    };
    assert_eq!(
        register_of(HostVTable::MIN_SIZE),
        u32::MAX,
        "not covered: as if it were not there"
    );
    assert_eq!(
        register_of(HostVTable::MIN_SIZE + 7),
        u32::MAX,
        "half a field is none"
    );
    assert_eq!(register_of(HostVTable::MIN_SIZE + 8), 1);
    assert_eq!(register_of(size_of::<HostVTable>()), 1);
}

#[test]
fn a_header_holds_its_texts() {
    let header = PluginHeader::new("name", "1.2.3", "entry", true);
    assert_eq!(PluginHeader::text(&header.name), "name");
    assert_eq!(PluginHeader::text(&header.version), "1.2.3");
    assert_eq!(PluginHeader::text(&header.entry), "entry");
    assert_eq!(PluginHeader::text(&[0xff, b'a', 0, b'b']), "\u{fffd}a");
    assert!(PluginHeader::text(&header.target).contains(std::env::consts::ARCH));
    assert_eq!(
        (header.panic_unwind, u32::from(header.ptr_width)),
        (1, usize::BITS)
    );
}
