//! Logs go to stderr, as text for people or one JSON object a line. What is logged can be changed while the daemon runs.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tidewater_rest::loggers::{LogLevels, LoggerLevel, ROOT};

use tidewater_runtime::config::nearest::suggestion;
use tidewater_runtime::config::worker_config::LogFormat;
use tracing::Level;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// What is logged, while the daemon runs.
pub struct Levels {
    filter: Handle<EnvFilter, Registry>,
    given: Mutex<Given>,
}

struct Given {
    /// What was configured: directives that `set` are laid over.
    configured: String,
    set: BTreeMap<String, LoggerLevel>,
}

/// Logs from now on. The level must have no [`fault`].
pub fn start(level: &str, format: LogFormat) -> Arc<Levels> {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_current_span(false))
            .init(),
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            registry
                .with(lines.with_ansi(!no_color && std::io::stderr().is_terminal()))
                .init();
        }
    }
    Arc::new(Levels {
        filter: handle,
        given: Mutex::new(Given {
            configured: level.to_owned(),
            set: BTreeMap::new(),
        }),
    })
}

impl Given {
    /// The directives in force.
    fn directives(&self) -> String {
        let mut directives = vec![self.configured.clone()];
        for (logger, level) in &self.set {
            directives.push(match logger.as_str() {
                ROOT => level.level.clone(),
                module => format!("{module}={}", level.level),
            });
        }
        directives.join(",")
    }
}

impl LogLevels for Levels {
    fn levels(&self) -> BTreeMap<String, LoggerLevel> {
        let given = self.given.lock();
        let mut levels = BTreeMap::from([(
            ROOT.to_owned(),
            LoggerLevel {
                level: "INFO".to_owned(),
                last_modified: None,
            },
        )]);
        for directive in given.configured.split(',').map(str::trim) {
            let (logger, level) = directive.split_once('=').unwrap_or((ROOT, directive));
            let level = LoggerLevel {
                level: level.to_uppercase(),
                last_modified: None,
            };
            levels.insert(logger.to_owned(), level);
        }
        levels.extend(given.set.clone());
        levels
    }

    fn set(&self, logger: &str, level: &str) -> Result<Vec<String>, String> {
        let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        if !known {
            let near = suggestion(level, LEVELS);
            return Err(format!(
                "there is no level {level:?}{near}; there are {}",
                LEVELS.join(", ")
            ));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_:-.".contains(c);
        if logger.is_empty() || !logger.chars().all(is_name) {
            return Err(format!(
                "{logger:?} is no logger; it is root, or a module such as tidewater_broker"
            ));
        }
        let mut given = self.given.lock();
        let before = given.set.clone();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let set = LoggerLevel {
            level: level.to_uppercase(),
            last_modified: i64::try_from(since.as_millis()).ok(),
        };
        given.set.insert(logger.to_owned(), set);
        let reloaded = EnvFilter::try_new(given.directives())
            .map_err(|error| error.to_string())
            .and_then(|filter| self.filter.reload(filter).map_err(|error| error.to_string()));
        if let Err(error) = reloaded {
            given.set = before;
            return Err(format!("{logger} at {level} cannot be logged: {error}"));
        }
        tracing::info!(logger, level, "what is logged was changed");
        Ok(vec![logger.to_owned()])
    }
}

/// Why `level` is neither a level nor directives. A directive's syntax alone would take `ifno` for the name of a module, and
/// be silent about all others.
pub fn fault(level: &str) -> Option<String> {
    for directive in level.split(',').map(str::trim) {
        let is_level = Level::from_str(directive).is_ok() || directive.eq_ignore_ascii_case("off");
        if !directive.contains(['=', '[']) && !is_level {
            let near = suggestion(directive, LEVELS);
            let levels = LEVELS.join(", ");
            return Some(format!(
                "must be one of {levels}, or directives such as info,tidewater_broker=debug{near}"
            ));
        }
    }
    EnvFilter::try_new(level)
        .err()
        .map(|error| format!("cannot be understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn levels_and_directives_are_told_from_typing_errors() {
        for level in [
            "info",
            "WARN",
            "off",
            "info,tidewater_broker=debug",
            "tidewater=trace,warn",
        ] {
            assert_eq!(fault(level), None, "{level}");
        }
        assert!(fault("ifno").is_some_and(|message| message.ends_with("did you mean info?")));
        assert!(fault("info,tidewater=loud").is_some());
    }
}
