//! What the run is doing, on standard error: a live line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

pub struct Progress {
    live: bool,
    begun: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            live: stderr().is_terminal(),
            begun: Instant::now(),
        }
    }

    pub fn step(&mut self, what: &str) {
        let seconds = self.begun.elapsed().as_secs();
        // That nobody can read it is no reason to stop.
        let _ = if self.live {
            write!(stderr(), "\r\x1b[K{seconds:>4} s  {what}")
        } else {
            writeln!(stderr(), "{seconds:>4} s  {what}")
        };
    }

    /// Takes the live line away, so that what follows stands alone.
    pub fn clear(&mut self) {
        if self.live {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
