//! `tidewater auth`: hashes for the file of users.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use tidewater_rest::access::{hash_password, hash_token};

use crate::cli::{AuthArgs, AuthCommand};
use crate::exit::{Failure, Result};

/// Runs the command.
pub fn auth(args: &AuthArgs) -> Result {
    let AuthCommand::Hash { token } = args.command;
    if io::stdin().is_terminal() {
        write!(
            io::stderr(),
            "{} (it will be seen): ",
            if token { "token" } else { "password" }
        )?;
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::input(format!("cannot read stdin: {error}")))?;
    let secret = line.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Failure::input("the first line of stdin is empty"));
    }
    let hash = if token {
        hash_token(secret)
    } else {
        hash_password(secret).map_err(Failure::runtime)?
    };
    writeln!(io::stdout(), "{hash}")?;
    Ok(())
}
