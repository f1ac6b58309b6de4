//! What a command ends with: 0 done, 1 failed at run time, 2 invalid input, 3 the environment lacks something.

use std::io;
use std::process::ExitCode;

use crate::output;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// None where all has been said.
    message: Option<String>,
}

/// What a command gives.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// 1: it went wrong while running.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: Some(message.into()),
        }
    }

    /// 2: what was given is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: Some(message.into()),
        }
    }

    /// 2, where what is wrong has been said already.
    pub fn input_reported() -> Self {
        Self {
            code: 2,
            message: None,
        }
    }

    /// 3: the environment lacks something.
    pub fn environment(message: impl Into<String>) -> Self {
        Self {
            code: 3,
            message: Some(message.into()),
        }
    }

    /// Says what is left to say and gives the exit code.
    pub fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            output::say_error(&message);
        }
        self.code.into()
    }
}

impl From<io::Error> for Failure {
    /// An output that cannot be written. A reader that has seen enough (`| head`) is none: that ends as done.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self {
                code: 0,
                message: None,
            },
            _ => Self::runtime(format!("cannot write the output: {error}")),
        }
    }
}
