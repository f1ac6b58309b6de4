//! `tidewater topics` and `tidewater groups`: the log of a running daemon.

use std::io::Write as _;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::{GroupsArgs, GroupsCommand, TopicsArgs, TopicsCommand};
use crate::client::{Client, segment};
use crate::exit::{Failure, Result};
use crate::output::{print_json, table};

/// Runs `topics`.
pub async fn topics(args: TopicsArgs) -> Result {
    let client = Client::new(&args.client)?;
    let path = |name: &str| format!("/topics/{}", segment(name));
    let mut out = anstream::stdout();
    match args.command {
        TopicsCommand::Ls { json } => list(&client, json).await?,
        TopicsCommand::Show { name, json } => show(&client.get(&path(&name)).await?, json)?,
        TopicsCommand::Create {
            name,
            partitions,
            config,
        } => {
            let body = json!({ "name": name, "partitions": partitions, "config": settings(&config)? });
            client.call(Method::POST, "/topics", Some(&body)).await?;
            writeln!(out, "{name} is created")?;
        }
        TopicsCommand::Alter {
            name,
            partitions,
            config,
        } => {
            let mut body = json!({ "config": settings(&config)? });
            if let Some(partitions) = partitions {
                body["partitions"] = partitions.into();
            }
            client.call(Method::PATCH, &path(&name), Some(&body)).await?;
            writeln!(out, "{name} is altered")?;
        }
        TopicsCommand::Delete { name } => {
            client.call(Method::DELETE, &path(&name), None).await?;
            writeln!(out, "{name} is deleted")?;
        }
    }
    Ok(())
}

/// `key=value` each; `key=` takes a setting back to its default.
fn settings(given: &[String]) -> Result<Map<String, Value>> {
    let mut settings = Map::new();
    for pair in given {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::input(format!(
                "--config {pair}: must be KEY=VALUE, such as retention.ms=86400000"
            )));
        };
        let value = if value.is_empty() {
            Value::Null
        } else {
            value.into()
        };
        settings.insert(key.trim().to_owned(), value);
    }
    Ok(settings)
}

async fn list(client: &Client, as_json: bool) -> Result {
    let all: Value = client.get("/topics").await?;
    if as_json {
        return Ok(print_json(&all)?);
    }
    let row = |topic: &Value| {
        let internal = topic["internal"] == true;
        [
            text(&topic["name"]),
            text(&topic["partitions"]),
            if internal { "the worker's own" } else { "" }.to_owned(),
        ]
    };
    let rows = all.as_array().into_iter().flatten().map(row);
    writeln!(anstream::stdout(), "{}", table(["TOPIC", "PARTITIONS", ""], rows))?;
    Ok(())
}

fn show(topic: &Value, as_json: bool) -> Result {
    if as_json {
        return Ok(print_json(topic)?);
    }
    let mut out = anstream::stdout().lock();
    let row = |partition: &Value| {
        [
            text(&partition["partition"]),
            text(&partition["log_start_offset"]),
            text(&partition["last_stable_offset"]),
            text(&partition["high_watermark"]),
            text(&partition["size_bytes"]),
        ]
    };
    let header = ["PARTITION", "LOG START", "LAST STABLE", "HIGH WATERMARK", "BYTES"];
    let partitions = topic["partitions"].as_array().into_iter().flatten().map(row);
    writeln!(out, "{}\n", table(header, partitions))?;
    let row =
        |(key, setting): (&String, &Value)| [key.clone(), text(&setting["value"]), text(&setting["source"])];
    let settings = topic["config"].as_object().into_iter().flatten().map(row);
    writeln!(out, "{}", table(["SETTING", "VALUE", "FROM"], settings))?;
    Ok(())
}

/// Runs `groups`.
pub async fn groups(args: GroupsArgs) -> Result {
    let client = Client::new(&args.client)?;
    let mut out = anstream::stdout();
    match args.command {
        GroupsCommand::Ls { json } => {
            let all: Value = client.get("/groups").await?;
            if json {
                return Ok(print_json(&all)?);
            }
            let row = |group: &Value| [text(&group["group"]), text(&group["state"])];
            let rows = all.as_array().into_iter().flatten().map(row);
            writeln!(out, "{}", table(["GROUP", "STATE"], rows))?;
        }
        GroupsCommand::Show { name, json } => {
            let group: Value = client.get(&format!("/groups/{}", segment(&name))).await?;
            if json {
                return Ok(print_json(&group)?);
            }
            let row = |offset: &Value| {
                [
                    text(&offset["topic"]),
                    text(&offset["partition"]),
                    text(&offset["committed_offset"]),
                    text(&offset["end_offset"]),
                    text(&offset["lag"]),
                ]
            };
            let header = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"];
            let rows = group["offsets"].as_array().into_iter().flatten().map(row);
            writeln!(out, "{}", table(header, rows))?;
        }
        GroupsCommand::Delete { name } => {
            client
                .call(Method::DELETE, &format!("/groups/{}", segment(&name)), None)
                .await?;
            writeln!(out, "{name} is forgotten")?;
        }
    }
    Ok(())
}

/// A value without quotes; a dash for none.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
