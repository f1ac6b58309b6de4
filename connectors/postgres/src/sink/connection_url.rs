//! `connection.url`: JDBC's form (`jdbc:postgresql://host:port/database?key=value`) and Postgres' own
//! (`postgres://host:port/database`).

use std::path::PathBuf;

/// What a URL says; everything it leaves out is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionUrl {
    /// The host, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// `sslmode`, as libpq spells it.
    pub sslmode: Option<String>,
    /// The certificate authorities' file.
    pub sslrootcert: Option<PathBuf>,
    /// The client certificate's file.
    pub sslcert: Option<PathBuf>,
    /// The client key's file.
    pub sslkey: Option<PathBuf>,
    /// The schemas to look tables up in: JDBC's `currentSchema`.
    pub search_path: Option<String>,
}

impl ConnectionUrl {
    /// Reads a URL. Parameters that only concern the JDBC driver (`reWriteBatchedInserts`, …) are passed over.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "expected jdbc:postgresql://host:port/database or postgres://host:port/database";
        let bare = text.strip_prefix("jdbc:").unwrap_or(text);
        let rest = bare
            .strip_prefix("postgresql:")
            .or_else(|| bare.strip_prefix("postgres:"))
            .ok_or(form)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest), // jdbc:postgresql:database
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let mut url = Self {
            database: non_empty(decoded(database)?),
            ..Self::default()
        };
        if let Some(user) = user {
            if user.contains(':') {
                return Err(PASSWORD_IN_URL.into());
            }
            url.user = non_empty(decoded(user)?);
        }
        (url.host, url.port) = host_and_port(place)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.parameter(key, decoded(value)?)?;
        }
        Ok(url)
    }

    fn parameter(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "password" => return Err(PASSWORD_IN_URL.into()),
            "user" => self.user = Some(value),
            "host" => self.host = value,
            "sslmode" => self.sslmode = Some(value),
            "ssl" if value.is_empty() || value == "true" => {
                self.sslmode.get_or_insert_with(|| "verify-full".to_owned());
            }
            "sslrootcert" => self.sslrootcert = Some(value.into()),
            "sslcert" => self.sslcert = Some(value.into()),
            "sslkey" => self.sslkey = Some(value.into()),
            "currentSchema" => self.search_path = Some(value),
            _ => {}
        }
        Ok(())
    }
}

/// A URL is shown in logs and answers, so a password in it would be, too (invariant 8).
const PASSWORD_IN_URL: &str = "holds a password, and would show it wherever the configuration is shown; \
                               move it to connection.password";

fn host_and_port(place: &str) -> Result<(String, u16), String> {
    if place.contains(',') {
        return Err(
            "names several hosts; give the one to write to, or a name that follows the primary".into(),
        );
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a [ without its ]")?;
            (host, port.strip_prefix(':'))
        }
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None | Some("") => 5432,
        Some(port) => port
            .parse()
            .map_err(|_| format!("has the port {port:?}, which is no number from 1 to 65535"))?,
    };
    let host = decoded(host)?;
    Ok((if host.is_empty() { "localhost".into() } else { host }, port))
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let code = rest
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or("has a % that two hexadecimal digits do not follow; write %25 for a % itself")?;
        bytes.push(code);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 once percent-decoded".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let url = ConnectionUrl::parse(
            "jdbc:postgresql://db.example:6432/shop?user=me&sslmode=require&currentSchema=a,b",
        )
        .unwrap();
        assert_eq!((url.host.as_str(), url.port), ("db.example", 6432));
        assert_eq!(url.database.as_deref(), Some("shop"));
        assert_eq!(url.user.as_deref(), Some("me"));
        assert_eq!(url.sslmode.as_deref(), Some("require"));
        assert_eq!(url.search_path.as_deref(), Some("a,b"));

        let url = ConnectionUrl::parse("postgres://me@[::1]/a%20b?reWriteBatchedInserts=true").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 5432));
        assert_eq!(url.database.as_deref(), Some("a b"));

        let url = ConnectionUrl::parse("jdbc:postgresql:shop").unwrap();
        assert_eq!(
            (url.host.as_str(), url.database.as_deref()),
            ("localhost", Some("shop"))
        );
        assert_eq!(ConnectionUrl::parse("postgresql://h").unwrap().database, None);
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for url in [
            "postgres://me:hunter2@h/d",
            "jdbc:postgresql://h/d?password=hunter2",
        ] {
            let why = ConnectionUrl::parse(url).unwrap_err();
            assert!(
                why.contains("connection.password") && !why.contains("hunter2"),
                "{why}"
            );
        }
    }

    #[test]
    fn faults_are_named() {
        for (url, part) in [
            ("mysql://h/d", "expected"),
            ("postgres://h:port/d", "port"),
            ("postgres://a,b/d", "several hosts"),
            ("postgres://h/%zz", "%25"),
        ] {
            let why = ConnectionUrl::parse(url).unwrap_err();
            assert!(why.contains(part), "{url}: {why}");
        }
    }
}
