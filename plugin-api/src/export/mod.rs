//! The plugin's side of the boundary: what [`export_plugin!`](crate::export_plugin) sets in motion. Authors need the
//! macro alone.
//!
//! The map, in the order an operation meets it:
//!
//! - [`entry`](self): the functions of the vtable; they queue and return;
//! - `instance`: what the host holds, a way into the thread's inbox;
//! - `thread`: the thread of an instance, its tokio runtime, its birth and its end;
//! - `worker`: takes operations from the inbox, one after the other, and drops them where the host says so;
//! - `perform`: what each opcode means for the author's connector or task;
//! - `panics`: catches panics, with their place, wherever the author's code runs;
//! - `reply`: a completion that fires exactly once;
//! - `frame_pool`: buffers of frames that have come back;
//! - `host`, `log`: what the plugin may call, and the log that goes there.

// The plugin's half of the boundary: every `unsafe` block says why it is sound.
#![allow(unsafe_code)]

mod entry;
mod frame_pool;
pub(crate) mod host;
mod instance;
mod log;
mod panics;
mod perform;
mod reply;
mod thread;
mod worker;

use std::sync::OnceLock;

pub use entry::entry;

use crate::abi::PluginHeader;
use crate::plugin::{ConnectorKind, ConnectorSpec};
use crate::sink::{SinkConnector, SinkTask};
use crate::source::{SourceConnector, SourceTask};

/// How to make the halves of a connector class.
#[derive(Clone, Copy)]
pub(crate) enum Make {
    Source {
        connector: fn() -> Box<dyn SourceConnector>,
        task: fn() -> Box<dyn SourceTask>,
    },
    Sink {
        connector: fn() -> Box<dyn SinkConnector>,
        task: fn() -> Box<dyn SinkTask>,
    },
}

/// A connector class of the plugin.
#[doc(hidden)]
pub struct Class {
    pub(crate) spec: ConnectorSpec,
    pub(crate) make: Make,
}

impl Class {
    /// The class of the source `T`.
    pub fn source<T: SourceConnector>() -> Self {
        Self {
            spec: ConnectorSpec {
                kind: ConnectorKind::Source,
                ..T::spec()
            },
            make: Make::Source {
                connector: T::create,
                task: T::create_task,
            },
        }
    }

    /// The class of the sink `T`.
    pub fn sink<T: SinkConnector>() -> Self {
        Self {
            spec: ConnectorSpec {
                kind: ConnectorKind::Sink,
                ..T::spec()
            },
            make: Make::Sink {
                connector: T::create,
                task: T::create_task,
            },
        }
    }
}

/// What [`export_plugin!`](crate::export_plugin) generates.
#[doc(hidden)]
pub trait Plugin: 'static {
    /// The static in the header's section.
    fn header() -> &'static PluginHeader;
    /// The classes, made once.
    fn classes() -> &'static OnceLock<Vec<Class>>;
    /// Makes the classes: runs the author's code.
    fn make_classes() -> Vec<Class>;
}

/// Makes the crate a plugin. It must be built with `crate-type = ["cdylib"]`, and this stands in it once.
///
/// ```
/// # use tidewater_plugin_api::{async_trait, *};
/// # struct Ticks;
/// # #[async_trait]
/// # impl SourceConnector for Ticks {
/// #     fn spec() -> ConnectorSpec { unimplemented!() }
/// #     fn create() -> Box<dyn SourceConnector> { unimplemented!() }
/// #     fn create_task() -> Box<dyn SourceTask> { unimplemented!() }
/// # }
/// tidewater_plugin_api::export_plugin! { name: "tidewater-ticks", sources: [Ticks] }
/// ```
///
/// `name` is the plugin's, of letters, digits, `-`, `_` and `.`; `sources` and `sinks` list the types of its
/// connectors, and either may be left out. The version is the crate's.
#[macro_export]
macro_rules! export_plugin {
    (
        name: $name:literal
        $(, sources: [$($source:ty),* $(,)?])?
        $(, sinks: [$($sink:ty),* $(,)?])?
        $(,)?
    ) => {
        // A plugin's header and entry must carry names that others find, which is what makes them "unsafe".
        #[allow(unsafe_code)]
        const _: () = {
            #[used]
            #[unsafe(link_section = ".tidewater.plugin")]
            static HEADER: $crate::abi::PluginHeader = $crate::abi::PluginHeader::new(
                $name,
                ::core::env!("CARGO_PKG_VERSION"),
                ::core::concat!("tidewater_plugin_v1_", $name),
                ::core::cfg!(panic = "unwind"),
            );

            struct Exported;

            impl $crate::export::Plugin for Exported {
                fn header() -> &'static $crate::abi::PluginHeader {
                    &HEADER
                }

                fn classes() -> &'static ::std::sync::OnceLock<::std::vec::Vec<$crate::export::Class>> {
                    static CLASSES: ::std::sync::OnceLock<::std::vec::Vec<$crate::export::Class>> =
                        ::std::sync::OnceLock::new();
                    &CLASSES
                }

                fn make_classes() -> ::std::vec::Vec<$crate::export::Class> {
                    ::std::vec![
                        $($($crate::export::Class::source::<$source>(),)*)?
                        $($($crate::export::Class::sink::<$sink>(),)*)?
                    ]
                }
            }

            #[unsafe(export_name = ::core::concat!("tidewater_plugin_v1_", $name))]
            extern "C" fn exported_entry(
                host: *const $crate::abi::HostVTable,
            ) -> *const $crate::abi::PluginVTable {
                // SAFETY: the ABI has the host give a table that lives as long as the process.
                unsafe { $crate::export::entry::<Exported>(host) }
            }
        };
    };
}
