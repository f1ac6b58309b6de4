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

const CONNECTORS_EXAMPLES: &str = "\
Examples:
  tidewater connectors ls                       what runs, and what is wrong
  tidewater connectors apply --dry-run orders.toml
  tidewater connectors restart orders --include-tasks --only-failed
  tidewater connectors ls --json | jq 'keys'

Exit codes:
  0  done
  1  the daemon failed
  2  invalid input, or no such connector
  3  the daemon cannot be reached, or does not let you";

const TOPICS_EXAMPLES: &str = "\
Examples:
  tidewater topics ls
  tidewater topics create orders --partitions 3 --config retention.ms=86400000
  tidewater topics alter orders --config retention.ms=   back to the default";

const CONSUME_EXAMPLES: &str = "\
Examples:
  tidewater consume orders                      all records, then those that come
  tidewater consume orders -e -o -10            the last 10 of each partition
  tidewater consume orders -f '%p:%o %k=%s\\n'
  tidewater consume orders --json -e | jq .value

Formats: %t topic, %p partition, %o offset, %T timestamp, %k key, %s value, %h headers.";

const PRODUCE_EXAMPLES: &str = "\
Examples:
  echo hello | tidewater produce greetings
  tidewater produce orders -K : < orders.txt    key:value a line";

const AUTH_EXAMPLES: &str = "\
Examples:
  tidewater auth hash                           asks for a password on stdin
  openssl rand -hex 32 | tee token | tidewater auth hash --token

What it prints goes into the file that rest.users.file names:
  [users.alice]
  role = \"admin\"                               or operator, or viewer
  password = \"$argon2id$…\"
  [tokens.ci]
  role = \"operator\"
  sha256 = \"…\"";

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
    /// Look after the connectors of a running daemon
    #[command(after_help = CONNECTORS_EXAMPLES)]
    Connectors(ConnectorsArgs),
    /// Look after the topics of a running daemon
    #[command(after_help = TOPICS_EXAMPLES)]
    Topics(TopicsArgs),
    /// See how far the consumer groups of a running daemon are
    Groups(GroupsArgs),
    /// Print the records of a topic
    #[command(after_help = CONSUME_EXAMPLES)]
    Consume(ConsumeArgs),
    /// Write a record to a topic for each line of stdin
    #[command(after_help = PRODUCE_EXAMPLES)]
    Produce(ProduceArgs),
    /// Make hashes of passwords and tokens
    #[command(after_help = AUTH_EXAMPLES)]
    Auth(AuthArgs),
}

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The daemon's REST API
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "TIDEWATER_URL",
        default_value = "http://127.0.0.1:8083"
    )]
    pub url: String,

    /// A token to call it with
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "TIDEWATER_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,

    /// A user to call it as
    #[arg(
        long,
        global = true,
        value_name = "NAME:PASSWORD",
        env = "TIDEWATER_USER",
        hide_env_values = true
    )]
    pub user: Option<String>,

    /// The certificate to trust, PEM [default: those of the system]
    #[arg(long, global = true, value_name = "FILE", env = "TIDEWATER_CA")]
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ConnectorsArgs {
    #[command(subcommand)]
    pub command: ConnectorsCommand,

    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub enum ConnectorsCommand {
    /// All connectors, their states, and what is wrong
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// One connector: its tasks and its keys
    Show {
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create the connector of a file
    Create {
        file: PathBuf,
        /// What it begins with [default: running]
        #[arg(long, value_name = "STATE")]
        state: Option<InitialState>,
    },
    /// Create the connector of a file, or make the one that is there what the file says
    Apply {
        file: PathBuf,
        /// Only print the difference
        #[arg(long)]
        dry_run: bool,
    },
    /// Have a connector rest; its tasks keep their plugins
    Pause { name: String },
    /// Have a connector go on
    Resume { name: String },
    /// Stop a connector: its tasks are released
    Stop { name: String },
    /// Restart a connector, or one of its tasks
    Restart {
        name: String,
        /// Only this task
        #[arg(long, value_name = "N", conflicts_with_all = ["include_tasks", "only_failed"])]
        task: Option<u32>,
        /// The tasks too
        #[arg(long)]
        include_tasks: bool,
        /// Only what has failed
        #[arg(long)]
        only_failed: bool,
    },
    /// Delete a connector; its offsets stay
    Delete { name: String },
    /// How far a connector has come; or, of a stopped one, where it goes on
    Offsets {
        name: String,
        /// Change them to those of a JSON file: {"offsets": [{"partition": {…}, "offset": {…}}]}
        #[arg(long, value_name = "FILE", conflicts_with = "reset")]
        set: Option<PathBuf>,
        /// Forget them: it begins anew
        #[arg(long)]
        reset: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum InitialState {
    Running,
    Paused,
    Stopped,
}

#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub command: TopicsCommand,

    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// All topics
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// A topic's partitions and settings
    Show {
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a topic
    Create {
        name: String,
        #[arg(long, short, default_value_t = 1)]
        partitions: u32,
        /// A setting under Kafka's name; may be given several times
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
    },
    /// Change a topic's settings, or add partitions
    Alter {
        name: String,
        /// How many there are to be
        #[arg(long, short)]
        partitions: Option<u32>,
        /// A setting under Kafka's name; without a value it goes back to its default
        #[arg(long, short, value_name = "KEY=VALUE")]
        config: Vec<String>,
    },
    /// Delete a topic with all its records
    Delete { name: String },
}

#[derive(Debug, Args)]
pub struct GroupsArgs {
    #[command(subcommand)]
    pub command: GroupsCommand,

    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// All groups; a sink's is connect-NAME
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// How far a group is behind
    Show {
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget what a group has committed
    Delete { name: String },
}

#[derive(Debug, Args)]
pub struct ConsumeArgs {
    pub topic: String,

    /// Only this partition
    #[arg(long, short, value_name = "N")]
    pub partition: Option<u32>,

    /// Where to begin: a number, earliest, latest, or -N for the last N of each partition [default: earliest]
    #[arg(long, short, allow_hyphen_values = true)]
    pub offset: Option<String>,

    /// Begin at this time, in milliseconds since 1970
    #[arg(long, value_name = "MS", conflicts_with = "offset")]
    pub from_time: Option<i64>,

    /// End after so many records
    #[arg(long, short, value_name = "N")]
    pub count: Option<u64>,

    /// End where there are no more records, instead of waiting for others
    #[arg(long, short)]
    pub exit: bool,

    /// How a record is printed [default: '%s\n']
    #[arg(long, short)]
    pub format: Option<String>,

    /// Print a JSON object a line
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ProduceArgs {
    pub topic: String,

    /// Write to this partition [default: by the key]
    #[arg(long, short, value_name = "N")]
    pub partition: Option<u32>,

    /// The key of all records
    #[arg(long, short)]
    pub key: Option<String>,

    /// What stands between key and value in each line
    #[arg(long, short = 'K', value_name = "TEXT", conflicts_with = "key")]
    pub key_delimiter: Option<String>,

    /// Write null for an empty value: a tombstone
    #[arg(long, short = 'Z')]
    pub null: bool,

    /// A header of all records; may be given several times
    #[arg(long, short = 'H', value_name = "NAME=VALUE")]
    pub header: Vec<String>,

    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    pub command: AuthCommand,
}

#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Hash what the first line of stdin holds
    Hash {
        /// It is a token, not a password
        #[arg(long)]
        token: bool,
    },
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
    /// Connector files, or directories of them; without any, connectors are created over the REST API
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,

    /// Where topics, offsets and copies of plugins are kept [default: tidewater-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where to serve the REST API: http://host:port or https://host:port, or none [default: http://127.0.0.1:8083]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    #[command(flatten)]
    pub worker: WorkerArgs,
}

impl RunArgs {
    /// The flags that are settings, by key.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let data_dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let given = [("data.dir", data_dir), ("listeners", self.listen.clone())];
        given
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
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
