//! Heartbeats: at an interval, a record for those who watch, and a message in the server's log, so that the slot moves on
//! while only tables that are not captured change.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::connection;
use super::failure;
use super::settings::Settings;

/// When the next heartbeat is due.
pub(crate) struct Heartbeat {
    settings: Arc<Settings>,
    interval: Duration,
    next: Instant,
    writing: Option<JoinHandle<Option<PgConnection>>>,
}

impl Heartbeat {
    /// Heartbeats as `settings` say; none where they want none.
    pub(crate) fn new(settings: &Arc<Settings>) -> Option<Self> {
        let interval = settings.heartbeat?;
        Some(Self {
            settings: settings.clone(),
            interval,
            next: Instant::now() + interval,
            writing: None,
        })
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Whether one is due now. Then the message is on its way, and the record is the caller's.
    pub(crate) async fn beat(&mut self) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        let connection = match &mut self.writing {
            // A slow server gets no second message before it has taken the first.
            Some(writing) if !writing.is_finished() => {
                self.next = Instant::now() + self.interval;
                return true;
            }
            Some(writing) => writing.await.ok().flatten(),
            None => None,
        };
        self.next = Instant::now() + self.interval;
        self.writing = Some(tokio::spawn(write(self.settings.clone(), connection)));
        true
    }
}

/// Writes the message; answers the connection for the next, unless it failed.
async fn write(settings: Arc<Settings>, connection: Option<PgConnection>) -> Option<PgConnection> {
    let attempt = async {
        let mut connection = match connection {
            Some(connection) => connection,
            None => connection::catalog(&settings.server).await?,
        };
        sqlx::query("SELECT pg_logical_emit_message(false, 'tidewater.heartbeat', '')")
            .execute(&mut connection)
            .await
            .map_err(|error| failure::sql(&settings.server, "writing a heartbeat", &error))?;
        Ok::<_, tidewater_plugin_api::Error>(connection)
    };
    match attempt.await {
        Ok(connection) => Some(connection),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}
