//! The C ABI between the daemon and a plugin: the layouts that both sides share, and nothing else.
//!
//! No type of Rust's own layout crosses, no reference outlives its call, and no allocation is freed by the side that
//! did not make it. Either side may be built by another compiler, with another standard library and another tokio.
//!
//! # Loading
//! 1. The host reads the [`PluginHeader`] out of the section [`HEADER_SECTION`] of the file, before it opens the
//!    library: no code of a plugin that does not fit ever runs.
//! 2. It opens a private copy of the file, never to close it, and calls the function that the header names in
//!    [`entry`](PluginHeader::entry) with its [`HostVTable`]. The answer is the plugin's [`PluginVTable`]; null means
//!    that the plugin cannot work with this host. The name begins with [`ENTRY_PREFIX`]; it is the one symbol that a
//!    plugin exports.
//! 3. `describe` gives the plugin's [`Description`](crate::payload::Description).
//!
//! # Instances and operations
//! `create` makes an *instance*: a connector or a task. It owns one thread, and everything of the author's runs there.
//! `submit` queues an *operation*, an [`Opcode`] with a payload, and never blocks. Its [`Completion`] fires exactly
//! once, on whatever thread, with a [`Status`] and a payload. Operations run one after the other in the order
//! submitted. The exception is [`Opcode::Poll`]: it waits aside while others are to be run, and goes on after them.
//! `cancel` drops a running or queued operation, whose completion then says [`Status::Cancelled`]; an operation that is
//! not there is ignored. `destroy` takes the instance back: what runs or waits is cancelled, the author's `stop` is
//! called where it has not been, everything is dropped, and the completion fires last. The host does not use the
//! pointer afterwards.
//!
//! Every function may be called on any thread. None blocks, none unwinds.
//!
//! # Versions
//! The major version must be equal. Minor versions only append: to the vtables, to [`LogEvent`], to the opcodes and to
//! the members of JSON payloads. Each struct states its size, and a reader takes only what that covers
//! ([`read_prefix`]). An opcode that is not known is answered with [`Status::Unsupported`]. A bit in
//! `required_features` that the host does not know makes it refuse the plugin.

// The one place where layouts and raw pointers are defined; see also `crate::export` and the host's crate.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use bytes::Bytes;

/// The first bytes of a [`PluginHeader`].
pub const MAGIC: [u8; 8] = *b"TWPLUGIN";
/// Must be equal on both sides.
pub const ABI_MAJOR: u16 = 1;
/// What this side can read at most; the other side may be older or newer.
pub const ABI_MINOR: u16 = 1;
/// The features this side knows, one bit each: none so far.
pub const KNOWN_FEATURES: u64 = 0;
/// The ELF section that holds the [`PluginHeader`]; `export_plugin!` spells it out.
pub const HEADER_SECTION: &str = ".tidewater.plugin";
/// How the entry's symbol begins; the plugin's name follows, so that two plugins can be linked into one program.
pub const ENTRY_PREFIX: &str = "tidewater_plugin_v1_";
/// The version of this SDK.
pub const SDK_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The target triple this code is built for.
pub const TARGET: &str = env!("TIDEWATER_TARGET");

/// What a plugin says about itself before any of its code runs. All texts are UTF-8, filled up with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PluginHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// The size of this struct in bytes; a later minor version may append.
    pub header_size: u32,
    /// [`ABI_MAJOR`] of the plugin.
    pub abi_major: u16,
    /// [`ABI_MINOR`] of the plugin.
    pub abi_minor: u16,
    /// Features without which the plugin cannot work, one bit each.
    pub required_features: u64,
    /// 1 where panics unwind; the host takes no other, since an abort would be its own end.
    pub panic_unwind: u8,
    /// The width of a pointer in bits.
    pub ptr_width: u8,
    /// Zero.
    pub reserved: [u8; 6],
    /// The version of the SDK the plugin was built with.
    pub sdk_version: [u8; 32],
    /// The target triple the plugin was built for.
    pub target: [u8; 64],
    /// The plugin's name.
    pub name: [u8; 64],
    /// The plugin's version.
    pub version: [u8; 32],
    /// The symbol of the plugin's [`Entry`].
    pub entry: [u8; 96],
}

impl PluginHeader {
    /// The header of a plugin built with this SDK. A text that is too long stops the build.
    pub const fn new(name: &str, version: &str, entry: &str, panic_unwind: bool) -> Self {
        Self {
            magic: MAGIC,
            header_size: size_of::<Self>() as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            required_features: 0,
            panic_unwind: panic_unwind as u8,
            ptr_width: usize::BITS as u8,
            reserved: [0; 6],
            sdk_version: inline(SDK_VERSION),
            target: inline(TARGET),
            name: inline(name),
            version: inline(version),
            entry: inline(entry),
        }
    }

    /// The text in one of the header's arrays, up to the first zero; what is not UTF-8 is replaced.
    pub fn text(array: &[u8]) -> String {
        let end = array.iter().position(|&byte| byte == 0).unwrap_or(array.len());
        String::from_utf8_lossy(&array[..end]).into_owned()
    }
}

const fn inline<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    assert!(bytes.len() < N, "a text of the plugin's header is too long");
    let mut out = [0; N];
    let mut index = 0;
    while index < bytes.len() {
        out[index] = bytes[index];
        index += 1;
    }
    out
}

/// The function a plugin exports. The host's table stays valid until the process ends, and so must the plugin's.
pub type Entry = unsafe extern "C" fn(host: *const HostVTable) -> *const PluginVTable;

/// What became of an operation, and what its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Done; the payload is the result.
    Ok = 0,
    /// Failed; the payload is an [`Error`](crate::Error) as JSON.
    Error = 1,
    /// Cancelled; no payload.
    Cancelled = 2,
    /// The plugin panicked, now or before; the payload is an [`Error`](crate::Error) as JSON.
    Panic = 3,
    /// The opcode is not known to the plugin; no payload.
    Unsupported = 4,
}

impl Status {
    /// The status that `number` stands for.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Ok,
            1 => Self::Error,
            2 => Self::Cancelled,
            3 => Self::Panic,
            4 => Self::Unsupported,
            _ => return None,
        })
    }
}

/// What an instance is asked to do. Payloads are JSON as [`crate::payload`] defines it unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Opcode {
    /// Connector: a configuration map; answers a list of [`ConfigProblem`](crate::ConfigProblem).
    Validate = 1,
    /// Connector: a configuration map; answers nothing.
    ConnectorStart = 2,
    /// Connector: the greatest number of tasks; answers a list of configuration maps.
    TaskConfigs = 3,
    /// Connector: nothing; answers nothing.
    ConnectorStop = 4,
    /// Connector, started or not: an [`AlterOffsets`](crate::payload::AlterOffsets); answers whether the class has agreed. Since
    /// minor version 1.
    AlterOffsets = 5,
    /// Source task: a [`SourceStart`](crate::payload::SourceStart); answers nothing.
    SourceStart = 16,
    /// Source task: nothing; answers a frame (see [`crate::frame`]) once there is something to read. A cancelled poll
    /// loses nothing: what was read stands in the answer of the next.
    Poll = 17,
    /// Source task: a list of [`SourcePosition`](crate::SourcePosition) that are durable; answers nothing.
    Commit = 18,
    /// Sink task: a [`SinkStart`](crate::payload::SinkStart); answers nothing.
    SinkStart = 32,
    /// Sink task: a list of [`AssignedPartition`](crate::AssignedPartition); answers a list of
    /// [`TopicPartitionOffset`](crate::TopicPartitionOffset).
    Open = 33,
    /// Sink task: a frame; answers a [`PutReport`](crate::PutReport).
    Put = 34,
    /// Sink task: nothing; answers nothing.
    Flush = 35,
    /// Sink task: a list of [`TopicPartition`](crate::TopicPartition); answers nothing.
    Close = 36,
    /// Any task: nothing; answers nothing. A poll that waits is cancelled.
    Stop = 48,
    /// Any task: nothing; answers a map from name to number.
    Metrics = 49,
}

impl Opcode {
    /// The opcode that `number` stands for.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Validate,
            2 => Self::ConnectorStart,
            3 => Self::TaskConfigs,
            4 => Self::ConnectorStop,
            5 => Self::AlterOffsets,
            16 => Self::SourceStart,
            17 => Self::Poll,
            18 => Self::Commit,
            32 => Self::SinkStart,
            33 => Self::Open,
            34 => Self::Put,
            35 => Self::Flush,
            36 => Self::Close,
            48 => Self::Stop,
            49 => Self::Metrics,
            _ => return None,
        })
    }

    /// What is being done, as a sentence's subject.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::ConnectorStart | Self::SourceStart | Self::SinkStart => "start",
            Self::TaskConfigs => "task_configs",
            Self::AlterOffsets => "alter_offsets",
            Self::ConnectorStop | Self::Stop => "stop",
            Self::Poll => "poll",
            Self::Commit => "commit",
            Self::Open => "open",
            Self::Put => "put",
            Self::Flush => "flush",
            Self::Close => "close",
            Self::Metrics => "metrics",
        }
    }
}

/// Bytes lent for the length of one call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// The first byte; may be null where `len` is 0.
    pub ptr: *const u8,
    /// How many.
    pub len: usize,
}

impl Slice {
    /// Lends `bytes`.
    pub const fn new(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// The bytes.
    ///
    /// # Safety
    /// `ptr` and `len` must denote memory that can be read, and is not written, for all of `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 || self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// Bytes handed over. Who holds a `Buf` calls `release` once, on any thread; the side that made it frees it there.
#[repr(C)]
#[derive(Debug)]
pub struct Buf {
    ptr: *const u8,
    len: usize,
    owner: *mut c_void,
    release: Option<unsafe extern "C" fn(owner: *mut c_void)>,
}

// SAFETY: the bytes are never written once the `Buf` is made, and `release` may be called on any thread; both are part
// of the ABI.
unsafe impl Send for Buf {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buf {}

impl Buf {
    /// No bytes.
    pub const EMPTY: Self = Self {
        ptr: ptr::null(),
        len: 0,
        owner: ptr::null_mut(),
        release: None,
    };

    /// Hands over what `owner` holds; it is dropped when the other side releases it.
    pub fn from_owner<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Self {
        let owner = Box::new(owner);
        let bytes: &[u8] = (*owner).as_ref();
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        Self {
            ptr,
            len,
            owner: Box::into_raw(owner).cast(),
            release: Some(release::<T>),
        }
    }

    /// A `Buf` of raw parts, for an implementation that does without the SDK.
    ///
    /// # Safety
    /// `ptr` and `len` must denote memory that stays readable and unchanged until `release` is called with `owner`,
    /// which must be sound once, on any thread.
    pub const unsafe fn from_raw(
        ptr: *const u8,
        len: usize,
        owner: *mut c_void,
        release: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> Self {
        Self {
            ptr,
            len,
            owner,
            release,
        }
    }

    /// The bytes, shared from now on and released with the last of them. Nothing is copied.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl From<Bytes> for Buf {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::EMPTY;
        }
        Self::from_owner(bytes)
    }
}

impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        let slice = Slice {
            ptr: self.ptr,
            len: self.len,
        };
        // SAFETY: the maker of a `Buf` promises this until it is released, which is when `self` is dropped.
        unsafe { slice.bytes() }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // SAFETY: taken, so called once; the ABI allows any thread.
            unsafe { release(self.owner) };
        }
    }
}

unsafe extern "C" fn release<T>(owner: *mut c_void) {
    // A panic in an owner's Drop must not unwind into the other side.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `owner` is the box that `Buf::from_owner::<T>` gave away, and this is called once.
        drop(unsafe { Box::from_raw(owner.cast::<T>()) });
    }));
}

/// What to call when an operation is done: exactly once, on any thread. `done` does not block and does not unwind.
#[repr(C)]
#[derive(Debug)]
pub struct Completion {
    /// The host's; to be given back as it is, and never to be followed.
    pub ctx: *mut c_void,
    /// Takes `ctx`, a [`Status`] and the payload.
    pub done: unsafe extern "C" fn(ctx: *mut c_void, status: u32, payload: Buf),
}

// SAFETY: the ABI lets `done` be called with `ctx` on any thread.
unsafe impl Send for Completion {}

/// An event of a plugin's log.
#[repr(C)]
#[derive(Debug)]
pub struct LogEvent {
    /// The size of this struct in bytes.
    pub size: u32,
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// The module it comes from, UTF-8.
    pub target: Slice,
    /// The message, UTF-8.
    pub message: Slice,
    /// The event's other fields, a JSON object whose members are strings, numbers and booleans; empty for none.
    pub fields: Slice,
    /// The connector's name, UTF-8; empty where the event belongs to none.
    pub connector: Slice,
    /// The task's number; -1 where the event belongs to none.
    pub task: i64,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MetricKind {
    /// Only grows: each record is added.
    Counter = 0,
    /// Goes up and down: each record replaces the one before.
    Gauge = 1,
}

/// What a plugin may call. None of these functions blocks for long or unwinds; all may be called on any thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostVTable {
    /// The size of this struct in bytes.
    pub size: u32,
    /// [`ABI_MINOR`] of the host.
    pub abi_minor: u16,
    /// Zero.
    pub reserved: u16,
    /// The host's; the first argument of every function.
    pub ctx: *mut c_void,
    /// Takes an event of the log.
    pub log: unsafe extern "C" fn(ctx: *mut c_void, event: *const LogEvent),
    /// The most verbose level that anybody wants now, 0 for none.
    pub log_max_level: unsafe extern "C" fn(ctx: *mut c_void) -> u32,
    /// The id of the plugin's metric `name`, the same for the same name; [`u32::MAX`] where the host takes no more.
    pub metric_register: unsafe extern "C" fn(ctx: *mut c_void, name: Slice, kind: u32) -> u32,
    /// Adds to a counter, or sets a gauge.
    pub metric_record: unsafe extern "C" fn(ctx: *mut c_void, id: u32, value: f64),
    /// Asks the host for something else; answers a [`Status`]. No opcode is defined so far: it is where a later minor
    /// version adds what a plugin may ask.
    pub call: unsafe extern "C" fn(ctx: *mut c_void, opcode: u32, payload: Slice, reply: *mut Buf) -> u32,
}

// SAFETY: the ABI lets every function be called with `ctx` on any thread.
unsafe impl Send for HostVTable {}
// SAFETY: as above.
unsafe impl Sync for HostVTable {}

/// What the host may call. `None` stands for a null pointer, which the host refuses as it loads the plugin.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PluginVTable {
    /// The size of this struct in bytes.
    pub size: u32,
    /// [`ABI_MINOR`] of the plugin.
    pub abi_minor: u16,
    /// Zero.
    pub reserved: u16,
    /// Writes the plugin's [`Description`](crate::payload::Description), or an [`Error`](crate::Error), as JSON to
    /// `reply` and answers a [`Status`].
    pub describe: Option<unsafe extern "C" fn(reply: *mut Buf) -> u32>,
    /// Makes the instance that `args`, a [`Create`](crate::payload::Create) as JSON, asks for and writes it to
    /// `instance`, or an [`Error`](crate::Error) as JSON to `error`; answers a [`Status`].
    pub create: Option<unsafe extern "C" fn(args: Slice, instance: *mut *mut c_void, error: *mut Buf) -> u32>,
    /// Queues an operation. `operation` is chosen by the host, unique for the instance.
    pub submit: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            operation: u64,
            opcode: u32,
            payload: Buf,
            completion: Completion,
        ),
    >,
    /// Cancels an operation.
    pub cancel: Option<unsafe extern "C" fn(instance: *mut c_void, operation: u64)>,
    /// Takes the instance back. Its `stop` gets at most `deadline_ms`, and so do blocking calls that still run; the
    /// completion says what `stop` answered. The instance must not be used afterwards.
    pub destroy:
        Option<unsafe extern "C" fn(instance: *mut c_void, deadline_ms: u64, completion: Completion)>,
}

/// A table whose reader may know more or fewer fields than its writer.
///
/// # Safety
/// `repr(C)`, with a `u32` first that states its size; the fields after it and what fills up their word are pointers
/// that any valid table may supply one by one.
pub unsafe trait Versioned: Copy {
    /// The size of the first minor version's table: no smaller one is ever valid.
    const MIN_SIZE: usize;
}

// SAFETY: as the trait asks; see the struct.
unsafe impl Versioned for HostVTable {
    const MIN_SIZE: usize = std::mem::offset_of!(Self, metric_register);
}

// SAFETY: as the trait asks; see the struct.
unsafe impl Versioned for PluginVTable {
    const MIN_SIZE: usize = size_of::<Self>();
}

/// Reads a table of whatever minor version: what it does not cover is taken from `absent`, what it has beyond this
/// side's knowledge is left. `Err` is the size of a table that is too small.
///
/// # Safety
/// `table` must be aligned and point to a table of as many readable bytes as its size states.
pub unsafe fn read_prefix<T: Versioned>(table: *const T, absent: T) -> Result<T, usize> {
    // SAFETY: a `Versioned` table begins with its size.
    let stated = unsafe { table.cast::<u32>().read() } as usize;
    if stated < T::MIN_SIZE {
        return Err(stated);
    }
    // Whole fields only: a size that ends within one covers it not.
    let covered = stated.min(size_of::<T>()) / align_of::<T>() * align_of::<T>();
    let mut out = absent;
    // SAFETY: at most what the table covers is read, at most `T` is written, and any prefix of a `Versioned` table laid
    // over `absent` is a valid `T`.
    unsafe {
        ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut out).cast::<u8>(), covered);
    }
    Ok(out)
}
