//! Errors of the sink: what was being done, where, what Postgres said, and what to do next.

use std::fmt::{self, Write as _};

use sqlx::postgres::PgDatabaseError;
use tidewater_plugin_api::{Error, ErrorKind, RecordFailure};

use super::text::TextError;

/// Where a record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the record at topic {}, partition {}, offset {}",
            self.topic, self.partition, self.offset
        )
    }
}

/// An error of the sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Postgres, or the way to it, failed.
    #[error("{doing}: {}", told(source))]
    Database {
        /// What was being done, to what.
        doing: String,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// A record cannot be written, by what it holds.
    #[error("{place} cannot be written: {reason}")]
    Unwritable {
        /// The record.
        place: Place,
        /// Why, and what to do.
        reason: String,
    },
    /// A record cannot be written to the table as that is.
    #[error("{place} cannot be written: {reason}")]
    Record {
        /// The record.
        place: Place,
        /// Why, and what to do.
        reason: String,
    },
    /// Records that no attempt will write, with their places in the frame; nothing of the frame was written.
    #[error("{}", refusals(.0))]
    Refused(Vec<(usize, String)>),
    /// Nothing came back.
    #[error(
        "writing a batch took more than {0} ms (write.timeout.ms); the batch is repeated on another connection. Look for \
         locks on the target's tables, and whether the server can be reached"
    )]
    Silent(u128),
    /// A value has no form that Postgres could read.
    #[error("{doing}: {why}")]
    Value {
        /// What was being done, to what.
        doing: String,
        /// Why.
        why: String,
    },
    /// Another instance has taken over (invariant 9).
    #[error("{0}")]
    Fenced(String),
    /// The configuration does not fit what is there.
    #[error("{0}")]
    Config(String),
    /// The target does not fit the records.
    #[error("{0}")]
    Target(String),
    /// A table was changed while a batch was being prepared for it.
    #[error("table {0} was changed while a batch was being prepared for it; the batch is repeated")]
    Changed(String),
    /// The host called in a way it must not.
    #[error("{0}")]
    Call(&'static str),
}

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The connection is of no more use; a new one may be.
    Lost,
    /// The transaction failed, and may succeed when repeated.
    Transient,
    /// A record's data was refused.
    Data,
    /// The table is not what it was when it was looked at.
    Stale,
    /// A person must do something.
    Final,
}

impl SinkError {
    /// An error of `doing` something.
    pub fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let doing = doing.into();
        move |source| SinkError::Database { doing, source }
    }

    /// A value that has no text form, met while `doing` something.
    pub fn value(doing: impl Into<String>) -> impl FnOnce(TextError) -> Self {
        let doing = doing.into();
        move |why| SinkError::Value { doing, why: why.0 }
    }

    /// The SQLSTATE, where Postgres gave one.
    pub fn code(&self) -> Option<String> {
        match self {
            SinkError::Database { source, .. } => Some(postgres(source)?.code().to_owned()),
            _ => None,
        }
    }

    /// What can be done.
    pub fn class(&self) -> Class {
        match self {
            SinkError::Database { source, .. } => match postgres(source) {
                Some(error) => class_of(error.code(), error.message()),
                None => match source {
                    sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Class::Lost,
                    _ => Class::Final,
                },
            },
            SinkError::Changed(_) => Class::Stale,
            SinkError::Silent(_) => Class::Lost,
            SinkError::Value { .. } | SinkError::Unwritable { .. } => Class::Data,
            _ => Class::Final,
        }
    }

    /// The error as the host wants it.
    pub fn into_plugin(self, server: &str) -> Error {
        let kind = match (&self, self.class()) {
            (SinkError::Fenced(_), _) => ErrorKind::Fenced,
            (SinkError::Config(_), _) => ErrorKind::Config,
            (SinkError::Changed(_), _) | (_, Class::Lost | Class::Transient) => ErrorKind::Retriable,
            (SinkError::Database { source, .. }, _) if is_config(source) => ErrorKind::Config,
            _ => ErrorKind::Fatal,
        };
        if let SinkError::Refused(records) = &self {
            let message = format!("postgres-sink at {server}: {self}");
            let failure = |(index, message): &(usize, String)| RecordFailure {
                index: *index as u32,
                message: message.clone(),
            };
            return Error::refused(message, records.iter().map(failure).collect());
        }
        let advice = match &self {
            SinkError::Database { source, .. } => advice(source),
            _ => "",
        };
        Error::new(kind, format!("postgres-sink at {server}: {self}{advice}"))
    }
}

/// The first record that is refused, and how many more.
fn refusals(records: &[(usize, String)]) -> String {
    match records {
        [] => "nothing is refused".to_owned(),
        [(_, first)] => first.clone(),
        [(_, first), more @ ..] => format!("{first} (and {} more records of the batch)", more.len()),
    }
}

fn postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>(),
        _ => None,
    }
}

fn class_of(code: &str, message: &str) -> Class {
    match code {
        // Shut down, starting, idle too long, unknown statement (a pooler switched servers), read-only (fail-over).
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "26000" | "25006" => Class::Lost,
        "55P03" | "57014" | "55006" => Class::Transient,
        "42P01" | "42703" | "42704" | "42P10" | "42804" | "3F000" => Class::Stale,
        "0A000" if message.contains("cached plan") => Class::Stale,
        // A statement would change a row twice; a view's check; an error raised by a trigger.
        "21000" | "44000" | "P0001" => Class::Data,
        _ if code.starts_with("08") => Class::Lost,
        _ if code.starts_with("40") || code.starts_with("53") => Class::Transient,
        _ if code.starts_with("22") || code.starts_with("23") => Class::Data,
        _ => Class::Final,
    }
}

fn is_config(error: &sqlx::Error) -> bool {
    match postgres(error) {
        Some(error) => error.code().starts_with("28") || error.code() == "3D000",
        None => matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Configuration(_)),
    }
}

/// What Postgres said, with everything that helps.
pub fn told(error: &sqlx::Error) -> String {
    let Some(error) = postgres(error) else {
        return error.to_string();
    };
    let mut text = format!("{} (SQLSTATE {})", error.message(), error.code());
    for (what, part) in [
        ("column", error.column()),
        ("constraint", error.constraint()),
        ("detail", error.detail()),
        ("hint", error.hint()),
    ] {
        if let Some(part) = part {
            let _ = write!(text, "; {what}: {part}");
        }
    }
    text
}

/// What to do next.
fn advice(error: &sqlx::Error) -> &'static str {
    let Some(database_error) = postgres(error) else {
        return match error {
            sqlx::Error::Io(_) => {
                ". Check that the server runs and that host, port and firewall let this machine in"
            }
            sqlx::Error::Tls(_) => ". Check connection.sslmode and the certificates",
            _ => "",
        };
    };
    match database_error.code() {
        "28P01" => ". Check connection.user and connection.password",
        "28000" => {
            ". Check connection.user, and that pg_hba.conf lets it in from here (connection.sslmode matters there)"
        }
        "3D000" => ". Create the database, or mend its name in connection.url",
        "42501" => {
            ". Grant the right to connection.user: USAGE on the schema; SELECT, INSERT, UPDATE, DELETE (and TRUNCATE, where enabled) on the table; CREATE on the schema for auto.create and the offsets table; ownership for auto.evolve"
        }
        "42P01" => ". Create the table, or set auto.create=true",
        "3F000" => ". Create the schema, or set auto.create=true",
        "42703" => ". Add the column, or set auto.evolve=true",
        "42P10" => ". Make a unique index on exactly the key's columns, or name other ones in pk.fields",
        "53100" => {
            ". The target's disk is full: make room there; the batch is then repeated, and nothing is lost"
        }
        "53300" => {
            ". The server has no connection left: raise max_connections or end other sessions; the batch is then repeated"
        }
        "57014" => ". A statement_timeout or an operator ended the statement; it is repeated",
        "55P03" => ". Another session holds the lock, perhaps an instance of this connector that still runs",
        "25006" => ". The server takes no writes, as a standby does: point connection.url at the primary",
        "40001" | "40P01" => ". The batch is repeated",
        "23503" => {
            ". The row it refers to is not there (yet): make the foreign key deferrable, or drop it in the target"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (code, class) in [
            ("57P01", Class::Lost),
            ("08006", Class::Lost),
            ("40001", Class::Transient),
            ("40P01", Class::Transient),
            ("53100", Class::Transient),
            ("53300", Class::Transient),
            ("22P02", Class::Data),
            ("23505", Class::Data),
            ("42P01", Class::Stale),
            ("42501", Class::Final),
            ("28P01", Class::Final),
        ] {
            assert_eq!(class_of(code, ""), class, "{code}");
        }
        assert_eq!(
            class_of("0A000", "cached plan must not change result type"),
            Class::Stale
        );
    }
}
