//! A throwaway PostgreSQL for this crate's tests: a cluster of its own in a temporary folder on a free port, with logical
//! decoding on, stopped when dropped.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its own part of this; a failure is the message

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

/// The superuser of every cluster.
pub const USER: &str = "tidewater";
/// Its password: with quotes and blanks, so that a place which splices it instead of passing it on is found.
pub const PASSWORD: &str = "p'w \"%41@:/?#\\";

/// A running cluster.
pub struct Postgres {
    home: tempfile::TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    server: Mutex<Option<Server>>,
}

/// The server's process, started by a thread that lives as long: the kernel ends the process with that thread.
struct Server {
    child: Child,
    keeper: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
}

static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Postgres {
    /// A cluster for this test alone.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A cluster for this test alone with further settings, such as `("wal_level", "replica")` or `("fsync", "on")`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let home = tempfile::Builder::new().prefix("tidewater-pg").tempdir().unwrap();
        let data = home.path().join("data");
        let password = home.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        if let Some((uid, gid)) = server_user() {
            for path in [home.path(), &password] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        let output = as_server_user(&program("initdb"))
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                USER,
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .arg(format!("--pwfile={}", password.display()))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let settings = settings
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let mut attempts = 0;
        let mut postgres = Self {
            home,
            port: 0,
            settings,
            server: Mutex::new(None),
        };
        loop {
            postgres.port = free_port();
            match postgres.launch() {
                Ok(()) => return postgres,
                // The port may be taken between its choice and its use.
                Err(log) if log.contains("Address already in use") && attempts < 10 => attempts += 1,
                Err(log) => panic!("postgres did not start:\n{log}"),
            }
        }
    }

    /// One cluster for all tests of this binary that run at the same time; stopped with the last of them. Make a
    /// [`database`](Self::database) in it.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    fn launch(&self) -> Result<(), String> {
        let log = self.home.path().join("log");
        let log_file = fs::File::create(&log).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some((uid, gid)) = server_user() {
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .arg("--clear-groups");
        }
        command
            .arg("--")
            .arg(program("postgres"))
            .arg("-D")
            .arg(self.home.path().join("data"));
        let (port, sockets) = (self.port.to_string(), self.home.path().display().to_string());
        let defaults = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            ("unix_socket_directories", sockets.as_str()),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            ("max_connections", "100"),
            ("fsync", "off"),
            ("logging_collector", "off"),
            ("timezone", "UTC"),
            ("lc_messages", "C"),
        ];
        let own = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        for (key, value) in defaults.into_iter().chain(own) {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        let (started, child) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let keeper = thread::spawn(move || {
            let _ = started.send(command.spawn());
            let _ = stopped.recv();
        });
        let mut child = child.recv().unwrap().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("database system is ready to accept connections") {
                break;
            }
            if child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fs::read_to_string(&log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(10));
        }
        *self.server.lock().unwrap() = Some(Server {
            child,
            keeper: Some((stop, keeper)),
        });
        Ok(())
    }

    /// The port, on 127.0.0.1; the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server has logged since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Stops the server in order (`fast`), or as a crash would (`immediate`).
    pub fn stop(&self, mode: &str) {
        let Some(mut server) = self
            .server
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
        else {
            return;
        };
        let _ = as_server_user(&program("pg_ctl"))
            .args(["stop", "-m", mode, "-t", "60", "-D"])
            .arg(self.home.path().join("data"))
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = server.child.wait();
        if let Some((stop, keeper)) = server.keeper.take() {
            drop(stop);
            let _ = keeper.join();
        }
    }

    /// Starts the server again after [`stop`](Self::stop), on the same port.
    pub fn start_again(&self) {
        self.launch()
            .unwrap_or_else(|log| panic!("postgres did not start again:\n{log}"));
    }

    /// How to connect to `database`.
    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(USER)
            .password(PASSWORD)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging()
    }

    /// A connection to `database`; `postgres` is always there.
    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.options(database)).await.unwrap()
    }

    /// A new empty database; its name is unlike any other.
    pub async fn database(&self) -> String {
        let name = format!(
            "db{}_{}",
            std::process::id(),
            DATABASES.fetch_add(1, Ordering::Relaxed)
        );
        self.execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await;
        name
    }

    /// Runs one or more statements.
    pub async fn execute(&self, database: &str, sql: &str) {
        let mut connection = self.connect(database).await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().await.unwrap();
    }

    /// The one value a query answers, as text; `None` is NULL or no row.
    pub async fn value(&self, database: &str, sql: &str) -> Option<String> {
        let mut connection = self.connect(database).await;
        let row = sqlx::query(AssertSqlSafe(format!("SELECT ({sql})::text")))
            .fetch_optional(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().await.unwrap();
        row.and_then(|row| row.get(0))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}

/// PostgreSQL refuses to run as root: the user and group to run it as instead.
fn server_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields[0] == name).then(|| (fields[2].parse().unwrap(), fields[3].parse().unwrap()))
        })
    };
    Some(
        find("postgres")
            .or_else(|| find("nobody"))
            .expect("a user to run postgres as"),
    )
}

fn as_server_user(program: &Path) -> Command {
    let Some((uid, gid)) = server_user() else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

/// One of PostgreSQL's programs: the newest under Debian's folder, else what is on the PATH.
pub fn program(name: &str) -> PathBuf {
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
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = versions
        .into_iter()
        .rev()
        .map(|(_, dir)| dir)
        .chain(std::env::split_paths(&path));
    let found = folders.find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file());
    found
        .expect("PostgreSQL's server is needed: apt-get install postgresql")
        .join(name)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
