//! The command line.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed at run time
  2  invalid input: a flag, a setting or a connector file
  3  the environment lacks something: plugins, a usable data directory";

const RUN_EXAMPLES: &str = "\
Examples:
  tidewater run orders.toml                     one connector, data in ./tidewater-data
  tidewater run --config /etc/tidewater/tidewater.toml /etc/tidewater/connectors
  TIDEWATER_DATA_DIR=/var/lib/tidewater tidewater run --log-format json connectors/

A connector file holds Kafka Connect's keys, as TOML, YAML, JSON or .properties:
  name = \"orders\"
  connector.class = \"file-source\"
  file = \"/var/log/orders.log\"
  topic = \"orders\"

A broken connector file is reported and keeps no other from running.

SIGTERM or Ctrl-C stops in order: tasks finish what they hold and positions are kept.
A second one ends at once; nothing acknowledged is lost.

Settings: defaults < tidewater.toml < environment (TIDEWATER_DATA_DIR) < flags (--data-dir).

Exit codes:
  0  stopped by a signal
  1  failed at run time
  2  invalid input: a flag, a setting, a missing path, or no connector that can run
  3  the environment lacks something: plugins, a usable data directory";

const VALIDATE_EXAMPLES: &str = "\
Examples:
  tidewater validate connectors/                every fault of every file, nothing is run
  tidewater validate --connect orders.toml      asks the servers too
  tidewater validate --json connectors/ | jq .errors

Exit codes:
  0  all files are valid, perhaps with warnings
  2  there are errors
  3  no plugin could be loaded, so classes are not known";

const PLUGINS_EXAMPLES: &str = "\
Examples:
  tidewater plugins                             what is installed
  tidewater plugins postgres-source             the keys of one class
  tidewater plugins file-sink --json | jq '.keys[].name'

Exit codes:
  0  done
  2  there is no such class
  3  no plugin could be loaded";

/// Kafka Connect as one binary: source and sink connectors around an embedded, durable, partitioned log
#[derive(Debug, Parser)]
#[command(name = "tidewater", version, styles = STYLES, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run connectors until a signal stops them
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Check connector files: every fault at once, nothing is run
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(ValidateArgs),
    /// List the installed connector classes, or the keys of one
    #[command(after_help = PLUGINS_EXAMPLES)]
    Plugins(PluginsArgs),
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The worker's settings [default: tidewater.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "TIDEWATER_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where to look for plugins, a directory or one library; may be given several times [default: the program's
    /// folder, its plugins/, /usr/lib/tidewater/plugins, /usr/local/lib/tidewater/plugins]
    #[arg(long, value_name = "DIR")]
    pub plugin_path: Vec<PathBuf>,

    /// How to log, on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What to log: error, warn, info, debug, trace, or directives such as info,tidewater_broker=debug
    /// (TIDEWATER_LOG is the same) [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Connector files, or directories of them
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,

    /// Where topics, offsets and copies of plugins are kept [default: tidewater-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    #[command(flatten)]
    pub worker: WorkerArgs,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Connector files, or directories of them
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,

    /// Ask the servers too: may the connector log in, is what it needs there?
    #[arg(long)]
    pub connect: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub worker: WorkerArgs,
}

#[derive(Debug, Args)]
pub struct PluginsArgs {
    /// A class by its short name or an alias: print its keys
    #[arg(value_name = "CLASS")]
    pub class: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub worker: WorkerArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
