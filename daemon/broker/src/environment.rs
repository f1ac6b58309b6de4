//! What a broker takes from the machine: its disk and its clock. Tests put others in their place.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::disk::Disk;
use crate::disk::real::RealDisk;

/// The disk and the clock of a broker.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Environment {
    /// Those of the machine.
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
        }
    }
}

impl<D: Disk + 'static> From<Arc<D>> for Environment {
    /// This disk, and the clock of the machine.
    fn from(disk: Arc<D>) -> Self {
        Self {
            disk,
            ..Self::default()
        }
    }
}
