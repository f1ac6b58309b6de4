//! What a run is doing: one live line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// The running step of a program a person watches.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    step: String,
    started: Instant,
    last_plain: Instant,
}

impl Progress {
    /// Begins without a step. On a terminal nothing is shown until the first.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            step: String::new(),
            started: Instant::now(),
            last_plain: Instant::now(),
        }
    }

    /// Begins a step.
    pub fn step(&mut self, step: impl Into<String>) {
        self.step = step.into();
        self.started = Instant::now();
        self.last_plain = Instant::now();
        match &self.bar {
            Some(bar) => {
                bar.set_message(self.step.clone());
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            None => eprintln!("· {}", self.step),
        }
    }

    /// Tells how far the step is; on plain output no more than every two seconds.
    pub fn detail(&mut self, detail: &str) {
        let took = self.started.elapsed().as_secs_f64();
        match &self.bar {
            Some(bar) => bar.set_message(format!("{}  {detail}  {took:.0} s", self.step)),
            None if self.last_plain.elapsed() >= Duration::from_secs(2) => {
                self.last_plain = Instant::now();
                eprintln!("  {} … {detail}  {took:.0} s", self.step);
            }
            None => {}
        }
    }

    /// Ends the step with its outcome, and answers how long it took.
    pub fn done(&mut self, outcome: &str) -> Duration {
        let took = self.started.elapsed();
        let line = format!("✓ {}  {outcome}  {:.1} s", self.step, took.as_secs_f64());
        match &self.bar {
            Some(bar) => {
                bar.disable_steady_tick();
                bar.println(line);
                bar.set_message("");
            }
            None => eprintln!("{line}"),
        }
        took
    }

    /// Takes the live line away, so that what follows stands alone.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A number as people read it: 124,571.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}
