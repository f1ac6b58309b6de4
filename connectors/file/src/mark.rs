//! A place in a file, with all that is needed to find it again.

use crate::fingerprint::Fingerprint;
use crate::regular_file::FileId;

/// A position, and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes from the beginning.
    pub position: u64,
    /// Which file; none in a position of another implementation.
    pub id: Option<FileId>,
    /// When the file was last written, as far as known then; nanoseconds since 1970.
    pub modified: u64,
    /// What the file holds up to the position.
    pub fingerprint: Fingerprint,
}
