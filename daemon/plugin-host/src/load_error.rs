//! Why a file is no plugin of this daemon: each reason apart, each with what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a plugin could not be loaded. The path stands beside it in a [`ScanReport`](crate::ScanReport).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The path leads nowhere.
    #[error("there is nothing at this path; check --plugin-path")]
    NotFound,
    /// The path is a folder where a file is meant.
    #[error("it is a folder, not a plugin's file")]
    Directory,
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    /// The file has no content.
    #[error("the file is empty; build or copy the plugin again")]
    Empty,
    /// The file is text, as a linker script or a page of an error saved in its place.
    #[error("it is a text file (it begins with {beginning:?}), not a shared library")]
    Text {
        /// How it begins.
        beginning: String,
    },
    /// The file is neither ELF nor text.
    #[error("it is not an ELF shared library (it begins with the bytes {beginning})")]
    NotElf {
        /// How it begins, in hexadecimal.
        beginning: String,
    },
    /// The file ends before what its own header announces.
    #[error("it is cut short: {detail}; copy or build it again")]
    Truncated {
        /// What reaches beyond the end.
        detail: String,
    },
    /// The file is a program.
    #[error("it is an executable, not a plugin; a plugin's crate has crate-type = [\"cdylib\"]")]
    Executable,
    /// The file is ELF, but neither program nor library.
    #[error("it is an ELF file of type {file_type}, not a shared library")]
    NotShared {
        /// The type's number.
        file_type: u16,
    },
    /// The library is for another processor.
    #[error("it is built for {found}, this machine is {expected}; build the plugin for this machine")]
    WrongMachine {
        /// What the file says.
        found: String,
        /// What this daemon runs on.
        expected: String,
    },
    /// A shared library, but no plugin.
    #[error(
        "it is a shared library but no Tidewater plugin: it has no plugin header (does its crate call export_plugin!?)"
    )]
    NoPlugin,
    /// The header does not make sense.
    #[error("its plugin header is damaged: {detail}; build the plugin again")]
    BadHeader {
        /// What is wrong.
        detail: String,
    },
    /// Another major version of the ABI.
    #[error(
        "it is built for ABI {found} (tidewater-plugin-api {sdk_version}), this daemon speaks ABI {expected}: rebuild it with tidewater-plugin-api {sdk_wanted}"
    )]
    WrongMajor {
        /// The plugin's.
        found: u16,
        /// The daemon's.
        expected: u16,
        /// The SDK the plugin was built with.
        sdk_version: String,
        /// The SDK to build with.
        sdk_wanted: String,
    },
    /// The plugin needs what this daemon does not offer.
    #[error(
        "it needs features this daemon does not know (bits {bits:#x}): update the daemon, or build the plugin with tidewater-plugin-api {sdk_wanted}"
    )]
    UnknownFeatures {
        /// The unknown ones.
        bits: u64,
        /// An SDK that does without them.
        sdk_wanted: String,
    },
    /// A panic in the plugin would end the daemon.
    #[error(
        "it is built with panic = \"abort\", so that a panic in it would end the daemon: build it with panic = \"unwind\""
    )]
    PanicAbort,
    /// Pointers of another width.
    #[error("its pointers have {found} bits, this daemon's have {expected}: build it for {target}")]
    PointerWidth {
        /// The plugin's.
        found: u8,
        /// The daemon's.
        expected: u8,
        /// The daemon's target.
        target: String,
    },
    /// Another target, such as musl for glibc.
    #[error(
        "it is built for the target {found}, this daemon for {expected}: build it with --target {expected}"
    )]
    WrongTarget {
        /// The plugin's.
        found: String,
        /// The daemon's.
        expected: String,
    },
    /// The copy that is to be opened cannot be made.
    #[error("cannot make the private copy {}: {source}; is the disk full, or the folder not writable?", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The dynamic linker refuses it.
    #[error("the dynamic linker refuses it: {reason}")]
    Open {
        /// The linker's own words.
        reason: String,
    },
    /// The header names an entry that is not there.
    #[error(
        "it does not export {symbol}, which its header names; was it stripped of its dynamic symbols? ({reason})"
    )]
    MissingSymbol {
        /// The symbol.
        symbol: String,
        /// The linker's own words.
        reason: String,
    },
    /// The entry gave no vtable.
    #[error("it declines to work with this daemon (ABI {major}.{minor}); it may need a newer one")]
    Declined {
        /// The daemon's major version.
        major: u16,
        /// The daemon's minor version.
        minor: u16,
    },
    /// The vtable is smaller than any version's, or lacks a function.
    #[error("its function table is not usable: {detail}; build the plugin again")]
    BadVtable {
        /// What is wrong.
        detail: String,
    },
    /// The plugin could not say what it is.
    #[error("it failed to describe itself: {message}")]
    Describe {
        /// The plugin's own words; a panic with its place.
        message: String,
    },
    /// What the plugin said about itself is not understood.
    #[error("its description is not understood: {detail}")]
    BadDescription {
        /// Why.
        detail: String,
    },
    /// A class of the same name is there already; the plugin's other classes are loaded.
    #[error("its class or alias {class:?} is already taken by {}; that one stays, so remove one of the two", kept.display())]
    DuplicateClass {
        /// The name that is taken.
        class: String,
        /// The plugin that has it.
        kept: PathBuf,
    },
}
