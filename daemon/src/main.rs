//! Tidewater: Kafka Connect as one binary.
//!
//! The map, in the order a call meets it:
//!
//! - [`cli`]: the command line and its help; [`exit`]: what a command ends with;
//! - [`settings`]: defaults < `tidewater.toml` < environment < flags; [`logging`]: to stderr, as text or JSON;
//! - [`plugins`]: finds and loads plugins;
//! - [`run`], [`validate`], [`catalog`]: the commands `run`, `validate` and `plugins`;
//! - [`client`]: calls to a running daemon, for [`connectors`], [`topics`] and [`records`]; [`auth`]: hashes of secrets;
//! - [`output`]: tables and lists for people, JSON for programs.

mod auth;
mod catalog;
mod cli;
mod client;
mod connectors;
mod exit;
mod logging;
mod output;
mod plugins;
mod records;
mod run;
mod settings;
mod signals;
mod topics;
mod validate;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::exit::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::environment(format!("cannot start threads: {error}")).report(),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Validate(args) => validate::validate(args).await,
            Command::Plugins(args) => catalog::plugins(args).await,
            Command::Connectors(args) => connectors::connectors(args).await,
            Command::Topics(args) => topics::topics(args).await,
            Command::Groups(args) => topics::groups(args).await,
            Command::Consume(args) => records::consume(args).await,
            Command::Produce(args) => records::produce(args).await,
            Command::Auth(args) => auth::auth(&args),
        }
    });
    // What still hangs, such as an abandoned task of a plugin, must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
