//! What went wrong with the server, told so that the reader knows what to do next.
//!
//! The kind of an error decides whether the host tries again, so each SQLSTATE that has a remedy of its own is named
//! here, for errors of SQL and of the replication protocol alike.

use std::fmt::Display;

use pgwire_replication::PgWireError;
use tidewater_plugin_api::{Error, ErrorKind};

use super::settings::Server;

/// What to do about an SQLSTATE.
fn remedy(code: &str, server: &Server) -> (ErrorKind, String) {
    let user = &server.user;
    let (kind, advice) = match code {
        "28P01" => (ErrorKind::Config, "check database.user and database.password".to_owned()),
        "28000" => (
            ErrorKind::Config,
            format!("check database.user, database.sslmode, and that pg_hba.conf lets role {user:?} in from here"),
        ),
        "3D000" => (ErrorKind::Config, "check database.dbname".to_owned()),
        "42501" => (ErrorKind::Config, format!("grant role {user:?} what it lacks (GRANT …, ALTER ROLE … REPLICATION)")),
        "53300" => (
            ErrorKind::Retriable,
            "all of the server's connections or WAL senders are taken: free one, or raise max_connections or \
             max_wal_senders"
                .to_owned(),
        ),
        "53400" => (
            ErrorKind::Fatal,
            "all of the server's replication slots are taken: drop one that nobody reads (pg_replication_slots, \
             pg_drop_replication_slot), or raise max_replication_slots"
                .to_owned(),
        ),
        "55006" => (ErrorKind::Retriable, "somebody else reads the slot: stop them, or use another slot.name".to_owned()),
        "55P03" => (ErrorKind::Retriable, "somebody holds a lock on the table; it is tried again".to_owned()),
        "57P01" | "57P02" | "57P03" | "57P05" => {
            (ErrorKind::Retriable, "the server is stopping or starting; it is tried again".to_owned())
        }
        "57014" => (ErrorKind::Retriable, "somebody cancelled the statement; it is tried again".to_owned()),
        "40001" | "40P01" => (ErrorKind::Retriable, "it is tried again".to_owned()),
        "42P01" | "42703" => {
            (ErrorKind::Retriable, "the table changed meanwhile; it is tried again as it now is".to_owned())
        }
        _ if code.starts_with("08") => (ErrorKind::Retriable, "it is tried again".to_owned()),
        _ if code.starts_with("53") => {
            (ErrorKind::Retriable, "the server lacks resources (disk, memory): see its log".to_owned())
        }
        _ if code.starts_with("58") || code.starts_with("XX") => {
            (ErrorKind::Retriable, "the server has a fault of its own: see its log".to_owned())
        }
        _ => (ErrorKind::Fatal, "see the server's log".to_owned()),
    };
    (kind, advice)
}

fn told(doing: impl Display, server: &Server, said: impl Display, code: &str) -> Error {
    let (kind, advice) = remedy(code, server);
    Error::new(
        kind,
        format!("{doing} ({server}): {said} [SQLSTATE {code}]; {advice}"),
    )
}

/// An error of SQL.
pub(crate) fn sql(server: &Server, doing: impl Display, error: &sqlx::Error) -> Error {
    use sqlx::Error as E;
    match error {
        E::Database(database) => {
            let code = database.code().unwrap_or_default();
            let mut said = database.message().to_owned();
            if let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                for (name, part) in [("detail", postgres.detail()), ("hint", postgres.hint())] {
                    if let Some(part) = part {
                        said = format!("{said} ({name}: {part})");
                    }
                }
            }
            told(doing, server, said, &code)
        }
        E::Io(io) => unreachable(doing, server, io),
        E::Tls(tls) => Error::config(format!(
            "{doing} ({server}): TLS failed: {tls}; check database.sslmode and database.sslrootcert"
        )),
        E::Configuration(fault) => Error::config(format!("{doing} ({server}): {fault}")),
        E::Protocol(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
            Error::retriable(format!("{doing} ({server}): {error}; it is tried again"))
        }
        other => Error::from_source(ErrorKind::Fatal, format!("{doing} ({server})"), other),
    }
}

/// An error of the replication protocol.
pub(crate) fn replication(server: &Server, doing: impl Display, error: &PgWireError) -> Error {
    match error {
        PgWireError::Server(said) => {
            let code = sqlstate(error).unwrap_or_default();
            if code == "42704" && said.contains("publication") {
                return Error::fatal(format!(
                    "{doing} ({server}): {said}; the publication is missing, or was made after the slot's position: \
                     make it again and drop the slot, so that both begin together with a snapshot"
                ));
            }
            told(
                doing,
                server,
                said.replace(&format!(" (SQLSTATE {code})"), ""),
                code,
            )
        }
        PgWireError::Io(io) => unreachable(doing, server, io),
        PgWireError::Auth(said) => Error::config(format!(
            "{doing} ({server}): {said}; check database.user and database.password, and that the role's password is \
             stored for SCRAM (password_encryption=scram-sha-256)"
        )),
        PgWireError::Tls(said) => Error::config(format!(
            "{doing} ({server}): TLS failed: {said}; check database.sslmode and database.sslrootcert"
        )),
        other => Error::retriable(format!("{doing} ({server}): {other}; it is tried again")),
    }
}

/// The SQLSTATE that the replication client puts into its messages.
pub(crate) fn sqlstate(error: &PgWireError) -> Option<&str> {
    let PgWireError::Server(said) = error else {
        return None;
    };
    let start = said.rfind("SQLSTATE ")? + "SQLSTATE ".len();
    said.get(start..start + 5)
}

fn unreachable(doing: impl Display, server: &Server, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            "nothing listens there: is the server up, and host and port right?"
        }
        std::io::ErrorKind::UnexpectedEof
        | std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::BrokenPipe => "the server closed the connection; it is tried again",
        _ => "check database.hostname and database.port, and the network in between",
    };
    Error::retriable(format!("{doing} ({server}): {error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::settings::Tls;
    use tidewater_plugin_api::Secret;

    #[test]
    fn a_sqlstate_decides_the_kind_and_no_password_shows() {
        let server = Server {
            host: "db".into(),
            port: 5432,
            user: "u".into(),
            password: Secret::new("hunter2"),
            database: "shop".into(),
            tls: Tls::Disable,
            root_certificates: None,
        };
        let error = PgWireError::Server("replication slot \"a\" is active (SQLSTATE 55006)".into());
        assert_eq!(sqlstate(&error), Some("55006"));
        let told = replication(&server, "starting replication", &error);
        assert_eq!(told.kind, ErrorKind::Retriable);
        assert!(
            told.message.contains("db:5432") && told.message.contains("55006"),
            "{told}"
        );
        assert!(!format!("{server:?} {told:?}").contains("hunter2"));
        assert_eq!(
            replication(&server, "x", &PgWireError::Server("y".into())).kind,
            ErrorKind::Fatal
        );
    }
}
