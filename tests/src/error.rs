//! What can go wrong while servers, daemons and comparisons are driven, said so that a person knows what to do.

use std::path::{Path, PathBuf};

/// The harness' result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the harness or of what it drives.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, folder or process could not be used.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done, as in "writing".
        doing: &'static str,
        /// To which file, folder or program.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A server refused a statement.
    #[error("{doing}: {source}")]
    Sql {
        /// What was being done, with the server's or table's name.
        doing: String,
        /// The server's answer.
        #[source]
        source: sqlx::Error,
    },
    /// A program or package is not on this machine.
    #[error("{what} is not on this machine: {remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// How to get it.
        remedy: String,
    },
    /// A child process ended or failed where it should not have.
    #[error("{what}\n--- its last output ---\n{output}")]
    Child {
        /// Which process, and how it ended.
        what: String,
        /// The end of what it wrote.
        output: String,
    },
    /// An awaited event did not come.
    #[error("waited {seconds} s in vain for {what}\n--- last output ---\n{output}")]
    TimedOut {
        /// The event.
        what: String,
        /// How long it was awaited.
        seconds: u64,
        /// The end of what the process in question wrote.
        output: String,
    },
    /// Data is not what it must be.
    #[error("{0}")]
    Different(String),
}

impl Error {
    /// An [`Error::Io`], for `map_err`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// An [`Error::Sql`], for `map_err`.
    pub fn sql(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Sql { doing, source }
    }
}
