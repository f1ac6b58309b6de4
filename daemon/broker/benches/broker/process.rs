//! What a process costs, as the kernel tells it.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// Processor seconds of this process so far, all threads.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory of a process in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    pub now: u64,
    /// The most it ever was.
    pub peak: u64,
}

pub fn resident(pid: u32) -> Result<Resident> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
        Ok(kilobytes
            .ok_or_else(|| format!("no {name} in the status of {pid}"))?
            .parse::<u64>()?
            * 1_024)
    };
    Ok(Resident {
        now: field("VmRSS")?,
        peak: field("VmHWM")?,
    })
}

pub fn open_files(pid: u32) -> Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}
