//! The output of a child process: read as it comes, kept, and awaited line by line instead of polled.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Everything a process has written so far, and a way to wait for what it writes next.
#[derive(Debug, Clone)]
pub struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    lines: usize,
    closed: bool,
}

impl Output {
    /// Reads `pipe` to its end on a thread of its own.
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, progress) = watch::channel(Progress::default());
        let store = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                if std::env::var_os("TIDEWATER_ECHO").is_some() {
                    eprintln!("{text}");
                }
                store.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                sender.send_modify(|progress| progress.lines += 1);
                line.clear();
            }
            sender.send_modify(|progress| progress.closed = true);
        });
        Self { lines, progress }
    }

    /// How many lines there are so far: a place from which [`Output::wait_from`] can look.
    pub fn len(&self) -> usize {
        self.progress.borrow().lines
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines from `start` on.
    pub fn lines_from(&self, start: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(start..).unwrap_or_default().to_vec()
    }

    /// The last lines, for an error's message.
    pub fn tail(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The first answer `pick` gives for a line from `start` on, those written already among them.
    pub async fn wait_from<T>(
        &self,
        start: usize,
        what: &str,
        patience: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let mut progress = self.progress.clone();
        let mut next = start;
        let search = async {
            loop {
                let seen = *progress.borrow_and_update();
                for line in self.lines_from(next) {
                    next += 1;
                    if let Some(found) = pick(&line) {
                        return Ok(found);
                    }
                }
                if seen.closed || progress.changed().await.is_err() {
                    return Err(Error::Child {
                        what: format!("the process ended before {what}"),
                        output: self.tail(),
                    });
                }
            }
        };
        tokio::time::timeout(patience, search).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                what: what.to_owned(),
                seconds: patience.as_secs(),
                output: self.tail(),
            })
        })
    }

    /// Waits until the process has closed its output, which it does by ending.
    pub async fn closed(&self, what: &str, patience: Duration) -> Result<()> {
        let mut progress = self.progress.clone();
        match tokio::time::timeout(patience, progress.wait_for(|progress| progress.closed)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TimedOut {
                what: what.to_owned(),
                seconds: patience.as_secs(),
                output: self.tail(),
            }),
        }
    }
}
