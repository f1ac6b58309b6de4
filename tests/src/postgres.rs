//! A throwaway PostgreSQL: a cluster of its own in a temporary folder, on a free port, with logical decoding on.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::child::{Child, User};
use crate::error::{Error, Result};
use crate::work_dir::WorkDir;

/// The role the cluster is made with; it may do everything.
pub const SUPERUSER: &str = "tidewater";

const START_PATIENCE: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_mins(1);

/// Where PostgreSQL's programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// The newest version under Debian's `/usr/lib/postgresql`, else what is on the PATH.
    pub fn find() -> Result<Self> {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((
                    entry.file_name().to_str()?.parse().ok()?,
                    entry.path().join("bin"),
                ))
            })
            .collect();
        versions.sort();
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = versions
            .into_iter()
            .rev()
            .map(|(_, dir)| dir)
            .chain(std::env::split_paths(&on_path));
        let dir = folders.find(|dir| {
            ["initdb", "postgres", "pg_recvlogical"]
                .iter()
                .all(|program| dir.join(program).is_file())
        });
        match dir {
            Some(dir) => Ok(Self { dir }),
            None => Err(Error::Missing {
                what: "PostgreSQL's server (initdb, postgres, pg_recvlogical)".to_owned(),
                remedy: "apt-get install postgresql".to_owned(),
            }),
        }
    }

    /// The full path of one of them.
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }
}

/// How safely the cluster writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As in production: fsync and synchronous commits.
    Full,
    /// Without fsync: what is killed is a process, not the machine, so nothing is lost and tests run faster.
    ProcessCrashOnly,
}

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// How safely it writes.
    pub durability: Durability,
    /// The superuser's password.
    pub password: String,
    /// Further settings, as in postgresql.conf; they win over the harness' own.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            durability: Durability::ProcessCrashOnly,
            // Quotes, blanks and URL characters, so that a place which splices it instead of passing it on is found.
            password: "p'w \"%41@:/?#\\".to_owned(),
            settings: Vec::new(),
        }
    }
}

/// A running (or stopped) cluster. Dropped, it is stopped.
#[derive(Debug)]
pub struct Postgres {
    name: String,
    programs: Programs,
    user: Option<User>,
    data: PathBuf,
    port: u16,
    options: PostgresOptions,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a cluster in `work` and starts it. Call from a thread that lives as long as it should.
    pub async fn start(work: &WorkDir, name: &str, options: PostgresOptions) -> Result<Self> {
        let programs = Programs::find()?;
        let user = User::for_servers()?;
        let home = work.folder(name)?;
        let data = home.join("data");
        let password_file = work.write(format!("{name}/password"), &options.password)?;
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600))
            .map_err(Error::io("protecting", &password_file))?;
        if let Some(user) = &user {
            for path in [&home, &password_file] {
                chown(path, Some(user.uid), Some(user.gid)).map_err(Error::io("handing over", path))?;
            }
        }
        init_cluster(&programs, user.as_ref(), &data, &password_file).await?;
        let mut server = Self {
            name: name.to_owned(),
            programs,
            user,
            data,
            port: 0,
            options,
            child: None,
        };
        // A free port may be taken between its choice and its use: choose again.
        let mut attempts = 0;
        loop {
            server.port = free_port()?;
            match server.launch().await {
                Err(Error::Child { output, .. })
                    if output.contains("Address already in use") && attempts < 10 =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    async fn launch(&mut self) -> Result<()> {
        let sockets = self
            .data
            .parent()
            .unwrap_or(Path::new("/tmp"))
            .display()
            .to_string();
        let fsync = if self.options.durability == Durability::Full {
            "on"
        } else {
            "off"
        };
        let port = self.port.to_string();
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            ("unix_socket_directories", sockets.as_str()),
            ("wal_level", "logical"),
            ("track_commit_timestamp", "on"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            ("max_connections", "100"),
            ("max_wal_size", "4GB"),
            ("fsync", fsync),
            ("synchronous_commit", "on"),
            ("logging_collector", "off"),
            ("log_line_prefix", "%m [%p] "),
            ("timezone", "UTC"),
            ("lc_messages", "C"),
        ];
        let mut command = Command::new(self.programs.path("postgres"));
        command.arg("-D").arg(&self.data);
        for (key, value) in settings {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        for (key, value) in &self.options.settings {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        // SIGINT is PostgreSQL's fast shutdown.
        let child = Child::spawn(
            &format!("PostgreSQL {}", self.name),
            &command,
            self.user.as_ref(),
            Signal::INT,
        )?;
        let output = child.output().clone();
        self.child = Some(child);
        output
            .wait_from(
                0,
                &format!("PostgreSQL {} to accept connections", self.name),
                START_PATIENCE,
                |line| {
                    line.contains("database system is ready to accept connections")
                        .then_some(())
                },
            )
            .await
    }

    /// The port it listens on, on 127.0.0.1. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.options.password
    }

    /// Its programs: psql, pg_recvlogical and so on.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.child
            .as_ref()
            .map(|child| child.output().tail())
            .unwrap_or_default()
    }

    /// Changes a setting for later starts.
    pub fn set(&mut self, key: &str, value: &str) {
        self.options.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Stops it in order, as `pg_ctl stop -m fast` does.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::INT);
            child.ended(STOP_PATIENCE).await?;
        }
        Ok(())
    }

    /// `kill -9` of the server's first process; the others end on their own when they notice.
    pub async fn kill_now(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill_now();
            // The log is closed once the last of its processes is gone.
            child
                .output()
                .closed("the end of the server's processes", STOP_PATIENCE)
                .await?;
        }
        Ok(())
    }

    /// Starts it again after [`Postgres::stop`] or [`Postgres::kill_now`], on the same port.
    pub async fn start_again(&mut self) -> Result<()> {
        self.launch().await
    }

    /// How to connect to one of its databases.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(SUPERUSER)
            .password(&self.options.password)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("tidewater-tests")
            .disable_statement_logging()
    }

    /// A connection to one of its databases.
    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        PgConnection::connect_with(&self.connect_options(database))
            .await
            .map_err(Error::sql(format!("connecting to {database} of {}", self.name)))
    }

    /// A pool of connections to one of its databases.
    pub fn pool(&self, database: &str, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(self.connect_options(database))
    }

    /// Runs one or more statements in one of its databases.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        let mut connection = self.connect(database).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .map_err(Error::sql(format!(
                "running {:?} in {database} of {}",
                first_line(sql),
                self.name
            )))?;
        connection
            .close()
            .await
            .map_err(Error::sql("closing a connection"))
    }

    /// The one value a query answers, as text; `None` is NULL or no row.
    pub async fn value(&self, database: &str, sql: &str) -> Result<Option<String>> {
        let mut connection = self.connect(database).await?;
        let row: Option<(Option<String>,)> = sqlx::query_as(AssertSqlSafe(format!("SELECT ({sql})::text")))
            .fetch_optional(&mut connection)
            .await
            .map_err(Error::sql(format!(
                "asking {:?} of {database} of {}",
                first_line(sql),
                self.name
            )))?;
        connection
            .close()
            .await
            .map_err(Error::sql("closing a connection"))?;
        Ok(row.and_then(|(value,)| value))
    }

    /// One of its programs, set up to reach `database` without asking.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.path(program));
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGPASSWORD", &self.options.password)
            .env("PGDATABASE", database);
        command
    }
}

async fn init_cluster(programs: &Programs, user: Option<&User>, data: &Path, password: &Path) -> Result<()> {
    let initdb = programs.path("initdb");
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .arg("--clear-groups");
    }
    command
        .arg("--")
        .arg(&initdb)
        .arg("-D")
        .arg(data)
        .arg("-U")
        .arg(SUPERUSER);
    command.args([
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]);
    command
        .arg(format!("--pwfile={}", password.display()))
        .current_dir("/")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(|join| Error::Child {
            what: format!("initdb: {join}"),
            output: String::new(),
        })?
        .map_err(Error::io("running (through setpriv)", &initdb))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Child {
        what: format!("initdb failed ({})", output.status),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A TCP port nothing listens on at this moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .map_err(Error::io("binding a free port on", "127.0.0.1"))?;
    Ok(listener
        .local_addr()
        .map_err(Error::io("asking the port of", "127.0.0.1"))?
        .port())
}

fn first_line(sql: &str) -> String {
    sql.trim()
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(120)
        .collect()
}
