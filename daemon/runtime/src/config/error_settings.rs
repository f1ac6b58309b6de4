//! `errors.*`: what is done about what fails.

use std::time::Duration;

use crate::dead_letters::DeadLetterTopic;

/// The settings under `errors.`, but for the longest pause between two attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorSettings {
    /// How long what may heal by itself is tried again in place before the task fails; none is for ever.
    pub retry_timeout: Option<Duration>,
    /// Whether a record that cannot be taken further is passed over instead of ending the task.
    pub tolerate: bool,
    /// Whether such records are logged one by one.
    pub log: bool,
    /// Whether the log shows their keys and values.
    pub log_contents: bool,
    /// Where they are kept.
    pub dead_letter_topic: Option<DeadLetterTopic>,
}
