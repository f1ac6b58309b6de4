//! Logs go to stderr, as text for people or one JSON object a line.

use std::io::IsTerminal as _;
use std::str::FromStr as _;

use tidewater_runtime::config::nearest::suggestion;
use tidewater_runtime::config::worker_config::LogFormat;
use tracing::Level;
use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Logs from now on. The level must have no [`fault`].
pub fn start(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .init(),
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            subscriber
                .with_ansi(!no_color && std::io::stderr().is_terminal())
                .init();
        }
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
