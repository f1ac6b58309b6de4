//! A file system of a few megabytes, to be filled: mounted by root, else in a namespace of its own, where any user may mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Child;
use crate::error::{Error, Result};

/// A small tmpfs. Dropped, it is gone.
#[derive(Debug)]
pub struct SmallDisk {
    mount_point: PathBuf,
    /// Holds the namespace in which the disk is mounted, if root did not mount it for all.
    holder: Option<Child>,
}

impl SmallDisk {
    /// Mounts one on `mount_point`; `size` as in `20m`.
    pub async fn mount(mount_point: PathBuf, size: &str) -> Result<Self> {
        fs::create_dir_all(&mount_point).map_err(Error::io("making", &mount_point))?;
        if rustix::process::geteuid().is_root() {
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
                .arg(&mount_point))?;
            return Ok(Self {
                mount_point,
                holder: None,
            });
        }
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && echo mounted >&2 && exec sleep infinity";
        command
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                size,
            ])
            .arg(&mount_point);
        let holder = Child::spawn("the holder of a small disk", &command, None, Signal::TERM)?;
        let mounted = |line: &str| (line == "mounted").then_some(());
        holder
            .output()
            .wait_from(0, "a small disk to be mounted", Duration::from_secs(10), mounted)
            .await?;
        Ok(Self {
            mount_point,
            holder: Some(holder),
        })
    }

    /// Where this process sees it.
    pub fn path(&self) -> PathBuf {
        match &self.holder {
            None => self.mount_point.clone(),
            Some(holder) => {
                let inside = self.mount_point.strip_prefix("/").unwrap_or(&self.mount_point);
                Path::new("/proc")
                    .join(holder.pid().to_string())
                    .join("root")
                    .join(inside)
            }
        }
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) -> Result<()> {
        let mut command = match &self.holder {
            None => Command::new("mount"),
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command.args(["--preserve-credentials", "--user", "--mount", "--target"]);
                command.arg(holder.pid().to_string()).arg("mount");
                command
            }
        };
        // With its source named, mount does not repeat the options it was mounted with, which a namespace may refuse.
        command.args(["-o", &format!("remount,size={size}"), "tmpfs"]);
        run(command.arg(&self.mount_point))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.holder.is_none() {
            // Lazily: whoever still has a file open there keeps it until it is closed.
            let _ = Command::new("umount").arg("-l").arg(&self.mount_point).status();
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .map_err(Error::io("running", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Child {
        what: format!("{command:?} failed ({})", output.status),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
