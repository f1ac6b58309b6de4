//! The daemon and its connectors as cargo builds them: found, or built first, so that no test runs a stale one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The packages of what a user installs.
const PACKAGES: [&str; 3] = [
    "tidewater",
    "tidewater-connector-postgres",
    "tidewater-connector-file",
];

/// A folder with the daemon and the connectors beside it.
#[derive(Debug, Clone)]
pub struct Built {
    folder: PathBuf,
}

impl Built {
    /// What `TIDEWATER_BIN_DIR` names; else what cargo builds now in the profile this program was built in (nothing to do when it is
    /// fresh), in the same target folder.
    pub fn find() -> Result<Self> {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        if let Some(folder) = FOLDER.get() {
            return Ok(Self {
                folder: folder.clone(),
            });
        }
        let folder = match std::env::var_os("TIDEWATER_BIN_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => build()?,
        };
        let built = Self {
            folder: FOLDER.get_or_init(|| folder).clone(),
        };
        for path in [built.daemon(), built.library("file"), built.library("postgres")] {
            if !path.is_file() {
                return Err(Error::Missing {
                    what: path.display().to_string(),
                    remedy: format!("cargo build -p {}", PACKAGES.join(" -p ")),
                });
            }
        }
        Ok(built)
    }

    /// The daemon.
    pub fn daemon(&self) -> PathBuf {
        self.folder.join("tidewater")
    }

    /// A connector's library.
    pub fn library(&self, connector: &str) -> PathBuf {
        self.folder.join(format!("libtidewater_connector_{connector}.so"))
    }
}

/// The repository.
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn build() -> Result<PathBuf> {
    let this = std::env::current_exe().map_err(Error::io("finding", "this program"))?;
    let mut folder = this.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.arg("build").current_dir(repository());
    if let Some(target) = folder.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(Error::io("running", Path::new(&cargo)))?;
    if output.status.success() {
        return Ok(folder.to_owned());
    }
    Err(Error::Child {
        what: format!(
            "cargo build of the daemon and its connectors failed ({})",
            output.status
        ),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
