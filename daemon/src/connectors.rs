//! `tidewater connectors`: the connectors of a running daemon.

use std::io::Write as _;
use std::path::Path;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidewater_plugin_api::ConfigMap;
use tidewater_runtime::config::ConnectorFile;

use crate::cli::{ConnectorsArgs, ConnectorsCommand, InitialState};
use crate::client::{Client, segment};
use crate::exit::{Failure, Result};
use crate::output::{self, print_json, table};

/// What `GET /connectors?expand=…` gives of one.
#[derive(Deserialize, Serialize)]
struct Expanded {
    info: Info,
    status: Status,
}

#[derive(Deserialize, Serialize)]
struct Info {
    name: String,
    config: ConfigMap,
    tasks: Vec<Value>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Serialize)]
struct Status {
    connector: State,
    tasks: Vec<Task>,
}

#[derive(Deserialize, Serialize)]
struct Task {
    id: u32,
    #[serde(flatten)]
    state: State,
}

#[derive(Deserialize, Serialize)]
struct State {
    #[serde(rename = "state")]
    name: String,
    #[serde(default)]
    trace: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    retries: u32,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// Runs the command.
pub async fn connectors(args: ConnectorsArgs) -> Result {
    let client = Client::new(&args.client)?;
    let path = |name: &str| format!("/connectors/{}", segment(name));
    match args.command {
        ConnectorsCommand::Ls { json } => list(&client, json).await,
        ConnectorsCommand::Show { name, json } => show(&client, &name, json).await,
        ConnectorsCommand::Create { file, state } => create(&client, &file, state).await,
        ConnectorsCommand::Apply { file, dry_run } => apply(&client, &file, dry_run).await,
        ConnectorsCommand::Pause { name } => {
            tell(
                &client,
                Method::PUT,
                &format!("{}/pause", path(&name)),
                &name,
                "pauses",
            )
            .await
        }
        ConnectorsCommand::Resume { name } => {
            tell(
                &client,
                Method::PUT,
                &format!("{}/resume", path(&name)),
                &name,
                "resumes",
            )
            .await
        }
        ConnectorsCommand::Stop { name } => {
            tell(
                &client,
                Method::PUT,
                &format!("{}/stop", path(&name)),
                &name,
                "stops",
            )
            .await
        }
        ConnectorsCommand::Restart {
            name,
            task,
            include_tasks,
            only_failed,
        } => {
            let path = match task {
                Some(task) => format!("{}/tasks/{task}/restart", path(&name)),
                None => format!(
                    "{}/restart?includeTasks={include_tasks}&onlyFailed={only_failed}",
                    path(&name)
                ),
            };
            tell(&client, Method::POST, &path, &name, "restarts").await
        }
        ConnectorsCommand::Delete { name } => {
            tell(
                &client,
                Method::DELETE,
                &path(&name),
                &name,
                "is deleted; its offsets stay",
            )
            .await
        }
        ConnectorsCommand::Offsets { name, set, reset } => {
            offsets(
                &client,
                &format!("{}/offsets", path(&name)),
                set.as_deref(),
                reset,
            )
            .await
        }
    }
}

async fn tell(client: &Client, method: Method, path: &str, name: &str, does: &str) -> Result {
    client.call(method, path, None).await?;
    writeln!(anstream::stdout(), "{name} {does}")?;
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result {
    let path = "/connectors?expand=info&expand=status";
    if as_json {
        return Ok(print_json(&client.get(path).await?)?);
    }
    let all: std::collections::BTreeMap<String, Expanded> = client.get(path).await?;
    let mut out = anstream::stdout().lock();
    if all.is_empty() {
        writeln!(
            out,
            "no connectors; create one with `tidewater connectors create FILE`"
        )?;
        return Ok(());
    }
    let row = |(name, connector): (String, Expanded)| {
        let states = &connector.status.tasks;
        let running = states.iter().filter(|task| task.state.name == "RUNNING").count();
        let class = connector.info.config.get("connector.class").cloned();
        [
            name,
            class.unwrap_or_default(),
            connector.info.kind,
            connector.status.connector.name.clone(),
            format!("{running}/{}", states.len()),
            trouble(&connector.status).unwrap_or_default(),
        ]
    };
    writeln!(
        out,
        "{}",
        table(
            ["CONNECTOR", "CLASS", "KIND", "STATE", "TASKS", "TROUBLE"],
            all.into_iter().map(row)
        )
    )?;
    Ok(())
}

/// The first thing that is wrong, in one line.
fn trouble(status: &Status) -> Option<String> {
    let of = |state: &State| {
        let text = state.trace.as_deref().or(state.reason.as_deref())?;
        Some(text.lines().next().unwrap_or_default().to_owned())
    };
    let of_task = |task: &Task| Some(format!("task {}: {}", task.id, of(&task.state)?));
    of(&status.connector).or_else(|| status.tasks.iter().find_map(of_task))
}

async fn show(client: &Client, name: &str, as_json: bool) -> Result {
    let path = format!("/connectors/{}", segment(name));
    let status_path = format!("{path}/status");
    if as_json {
        let (info, status): (Value, Value) = (client.get(&path).await?, client.get(&status_path).await?);
        return Ok(print_json(&json!({ "info": info, "status": status }))?);
    }
    let info: Info = client.get(&path).await?;
    let status: Status = client.get(&status_path).await?;
    let mut out = anstream::stdout().lock();
    let class = info.config.get("connector.class").map_or("", String::as_str);
    writeln!(
        out,
        "{name}  {class} ({}), {}\n",
        info.kind, status.connector.name
    )?;
    let row = |task: &Task| {
        let state = &task.state;
        let text = state.trace.as_deref().or(state.reason.as_deref());
        [
            task.id.to_string(),
            state.name.clone(),
            state.retries.to_string(),
            text.unwrap_or_default().to_owned(),
        ]
    };
    if !status.tasks.is_empty() {
        let header = ["TASK", "STATE", "FAILURES", "TROUBLE"];
        writeln!(out, "{}\n", table(header, status.tasks.iter().map(row)))?;
    }
    if let Some(text) = status.connector.trace.or(status.connector.reason) {
        writeln!(out, "{text}\n")?;
    }
    let rows = info.config.into_iter().map(|(key, value)| [key, value]);
    writeln!(out, "{}", table(["KEY", "VALUE"], rows))?;
    Ok(())
}

async fn offsets(client: &Client, path: &str, set: Option<&Path>, reset: bool) -> Result {
    let answer = if let Some(file) = set {
        let unusable = |error: &dyn std::fmt::Display| Failure::input(format!("{}: {error}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
        let body: Value = serde_json::from_str(&text).map_err(|error| unusable(&error))?;
        client.call(Method::PATCH, path, Some(&body)).await?
    } else if reset {
        client.call(Method::DELETE, path, None).await?
    } else {
        return Ok(print_json(&client.get(path).await?)?);
    };
    let message = answer["message"].as_str().unwrap_or_default();
    writeln!(anstream::stdout(), "{message}")?;
    Ok(())
}

/// The connector of a file; its faults are said.
fn read(file: &Path) -> Result<ConnectorFile> {
    ConnectorFile::read(file).map_err(|problems| {
        output::say_problems(&problems);
        Failure::input_reported()
    })
}

async fn create(client: &Client, file: &Path, state: Option<InitialState>) -> Result {
    let file = read(file)?;
    let state = state.map(|state| format!("{state:?}").to_uppercase());
    let mut body = json!({ "name": file.name, "config": file.config });
    if let Some(state) = state {
        body["initial_state"] = state.into();
    }
    client.call(Method::POST, "/connectors", Some(&body)).await?;
    writeln!(anstream::stdout(), "{} is created", file.name)?;
    Ok(())
}

/// Creates the connector of a file, or makes the one that is there what the file says.
async fn apply(client: &Client, file: &Path, dry_run: bool) -> Result {
    let file = read(file)?;
    let path = format!("/connectors/{}/config", segment(&file.name));
    let names: Vec<String> = client.get("/connectors").await?;
    let there = if names.contains(&file.name) {
        Some(client.get::<ConfigMap>(&path).await?)
    } else {
        None
    };
    let changes = difference(there.as_ref(), &file.config);
    let mut out = anstream::stdout();
    let verb = match (&there, changes.is_empty()) {
        (Some(_), true) => {
            writeln!(out, "{} is as the file says", file.name)?;
            return Ok(());
        }
        (Some(_), false) => "changed",
        (None, _) => "created",
    };
    for change in &changes {
        writeln!(out, "{change}")?;
    }
    if dry_run {
        writeln!(out, "{} would be {verb}; nothing was done", file.name)?;
        return Ok(());
    }
    let config = serde_json::to_value(&file.config)
        .map_err(|error| Failure::runtime(format!("the configuration is no JSON: {error}")))?;
    client.call(Method::PUT, &path, Some(&config)).await?;
    writeln!(out, "{} is {verb}", file.name)?;
    Ok(())
}

/// A line for each key that differs: `+ key = new`, `- key = old`, `~ key = old -> new`.
fn difference(there: Option<&ConfigMap>, wanted: &ConfigMap) -> Vec<String> {
    let none = ConfigMap::new();
    let there = there.unwrap_or(&none);
    let mut keys: Vec<&String> = there.keys().chain(wanted.keys()).collect();
    keys.sort();
    keys.dedup();
    let line = |key: &String| match (there.get(key), wanted.get(key)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(old), Some(new)) => Some(format!("~ {key} = {old} -> {}", shown(old, new))),
        (Some(old), None) => Some(format!("- {key} = {old}")),
        (None, Some(new)) => Some(format!("+ {key} = {new}")),
        (None, None) => None,
    };
    keys.into_iter().filter_map(line).collect()
}

/// The new value of what the daemon hides is a secret too.
fn shown<'a>(old: &'a str, new: &'a str) -> &'a str {
    if old.chars().all(|c| c == '*') && !old.is_empty() {
        old
    } else {
        new
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn differences_are_told_key_by_key_and_secrets_are_not() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            pairs.collect()
        };
        let there = map(&[("a", "1"), ("b", "2"), ("c", "3"), ("password", "********")]);
        let wanted = map(&[("a", "1"), ("b", "two"), ("d", "4"), ("password", "s3cret")]);
        let lines = difference(Some(&there), &wanted);
        let expected = [
            "~ b = 2 -> two",
            "- c = 3",
            "+ d = 4",
            "~ password = ******** -> ********",
        ];
        assert_eq!(lines, expected);
        assert!(difference(Some(&there), &there).is_empty());
    }
}
