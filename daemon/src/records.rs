//! `tidewater consume` and `tidewater produce`: records of a running daemon's topics, in the manner of kcat.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{ConsumeArgs, ProduceArgs};
use crate::client::{Client, segment};
use crate::exit::{Failure, Result};

/// Records asked for, and sent, at a time.
const PAGE: u64 = 1000;
/// How long a call waits for records, in milliseconds.
const WAIT_MS: u64 = 10_000;

#[derive(Deserialize)]
struct Page {
    records: Vec<Record>,
    next: BTreeMap<u32, u64>,
}

#[derive(Deserialize, Serialize)]
struct Record {
    partition: u32,
    offset: u64,
    timestamp: i64,
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<Header>,
}

#[derive(Deserialize, Serialize)]
struct Header {
    name: String,
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Runs `consume`.
pub async fn consume(args: ConsumeArgs) -> Result {
    let client = Client::new(&args.client)?;
    let topic: Value = client.get(&format!("/topics/{}", segment(&args.topic))).await?;
    let partitions = topic["partitions"].as_array().map_or(0, Vec::len) as u32;
    if let Some(partition) = args.partition.filter(|partition| *partition >= partitions) {
        return Err(Failure::input(format!(
            "topic {} has no partition {partition}; it has {partitions}, from 0",
            args.topic
        )));
    }
    let format = Format::parse(&args)?;
    let records = format!("/topics/{}/records", segment(&args.topic));
    let start = match (&args.offset, args.from_time) {
        (_, Some(time)) => format!("timestamp={time}"),
        (Some(offset), None) => format!("offset={offset}"),
        (None, None) => "offset=earliest".to_owned(),
    };
    let wanted: Vec<u32> = args.partition.map_or((0..partitions).collect(), |one| vec![one]);
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut out = io::stdout().lock();
    // The first page of each partition from where it is to begin, and from then on where the last one ended.
    for partition in &wanted {
        let max = left.min(PAGE);
        let page: Page = client
            .get(&format!("{records}?partition={partition}&{start}&max={max}"))
            .await?;
        left -= write_all(&mut out, &page, &format)?;
        next.extend(page.next);
    }
    while left > 0 {
        let mut read = 0;
        for (partition, offset) in &mut next {
            let max = left.min(PAGE);
            // One partition can wait for records; of several, each is looked at in turn.
            let wait = if wanted.len() == 1 && !args.exit {
                WAIT_MS
            } else {
                0
            };
            let path = format!("{records}?partition={partition}&offset={offset}&max={max}&wait.ms={wait}");
            let page: Page = client.get(&path).await?;
            let written = write_all(&mut out, &page, &format)?;
            left -= written;
            read += written;
            *offset = page.next.get(partition).copied().unwrap_or(*offset);
        }
        if read == 0 {
            if args.exit {
                break;
            }
            if wanted.len() > 1 {
                // Wait for a record in any partition; it is read from its offset then.
                let path = format!("{records}?offset=latest&max=1&wait.ms={}", WAIT_MS / 20);
                client.get::<Page>(&path).await?;
            }
        }
        out.flush()?;
    }
    out.flush()?;
    Ok(())
}

fn write_all(out: &mut impl Write, page: &Page, format: &Format) -> Result<u64> {
    for record in &page.records {
        format.write(out, record)?;
    }
    Ok(page.records.len() as u64)
}

/// How a record is printed.
enum Format {
    Json,
    /// Text and the parts of a record, in turn.
    Pattern(Vec<Piece>),
}

enum Piece {
    Text(String),
    Topic(String),
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
}

impl Format {
    fn parse(args: &ConsumeArgs) -> Result<Self> {
        if args.json {
            return Ok(Self::Json);
        }
        let pattern = args.format.as_deref().unwrap_or("%s\n");
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let piece = match (c, c == '%' || c == '\\') {
                (c, false) => {
                    text.push(c);
                    continue;
                }
                ('%', _) => match chars.next() {
                    Some('t') => Piece::Topic(args.topic.clone()),
                    Some('p') => Piece::Partition,
                    Some('o') => Piece::Offset,
                    Some('T') => Piece::Timestamp,
                    Some('k') => Piece::Key,
                    Some('s') => Piece::Value,
                    Some('h') => Piece::Headers,
                    Some('%') => Piece::Text("%".to_owned()),
                    other => {
                        let found = other.map_or("%".to_owned(), |c| format!("%{c}"));
                        return Err(Failure::input(format!(
                            "--format: {found} is none of %t topic, %p partition, %o offset, %T timestamp, %k key, \
                             %s value, %h headers, %% a percent sign"
                        )));
                    }
                },
                _ => match chars.next() {
                    Some('n') => Piece::Text("\n".to_owned()),
                    Some('t') => Piece::Text("\t".to_owned()),
                    Some('0') => Piece::Text("\0".to_owned()),
                    Some(other) => Piece::Text(other.to_string()),
                    None => Piece::Text("\\".to_owned()),
                },
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(piece);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self::Pattern(pieces))
    }

    fn write(&self, out: &mut impl Write, record: &Record) -> io::Result<()> {
        let pieces = match self {
            Self::Json => {
                serde_json::to_writer(&mut *out, record)?;
                return out.write_all(b"\n");
            }
            Self::Pattern(pieces) => pieces,
        };
        for piece in pieces {
            match piece {
                Piece::Text(text) | Piece::Topic(text) => out.write_all(text.as_bytes())?,
                Piece::Partition => write!(out, "{}", record.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp)?,
                Piece::Key => write_bytes(out, record.key.as_deref(), record.key_base64.as_deref())?,
                Piece::Value => write_bytes(out, record.value.as_deref(), record.value_base64.as_deref())?,
                Piece::Headers => {
                    for (i, header) in record.headers.iter().enumerate() {
                        let comma = if i == 0 { "" } else { "," };
                        write!(out, "{comma}{}=", header.name)?;
                        write_bytes(out, header.value.as_deref(), header.value_base64.as_deref())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Bytes as they are; nothing for null.
fn write_bytes(out: &mut impl Write, text: Option<&str>, base64: Option<&str>) -> io::Result<()> {
    if let Some(base64) = base64 {
        let bytes = STANDARD
            .decode(base64)
            .map_err(|error| io::Error::other(format!("the daemon sent no Base64: {error}")))?;
        return out.write_all(&bytes);
    }
    out.write_all(text.unwrap_or_default().as_bytes())
}

/// Runs `produce`: a record a line.
pub async fn produce(args: ProduceArgs) -> Result {
    let client = Client::new(&args.client)?;
    let path = format!("/topics/{}/records", segment(&args.topic));
    let headers = headers(&args.header)?;
    let mut batch = Vec::new();
    let mut written = 0;
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line = line.map_err(|error| Failure::input(format!("line {}: {error}", number + 1)))?;
        let mut record = record(&args, &line, number + 1)?;
        record["headers"] = json!(headers);
        if let Some(partition) = args.partition {
            record["partition"] = partition.into();
        }
        batch.push(record);
        if batch.len() as u64 >= PAGE {
            written += send(&client, &path, &mut batch).await?;
        }
    }
    written += send(&client, &path, &mut batch).await?;
    writeln!(io::stderr(), "{written} written to {}", args.topic)?;
    Ok(())
}

async fn send(client: &Client, path: &str, batch: &mut Vec<Value>) -> Result<usize> {
    if batch.is_empty() {
        return Ok(0);
    }
    let records = std::mem::take(batch);
    let count = records.len();
    client
        .call(Method::POST, path, Some(&json!({ "records": records })))
        .await?;
    Ok(count)
}

fn record(args: &ProduceArgs, line: &str, number: usize) -> Result<Value> {
    let (key, value) = match args.key_delimiter.as_deref() {
        None => (args.key.as_deref(), line),
        Some(delimiter) => {
            let (key, value) = line.split_once(delimiter).ok_or_else(|| {
                Failure::input(format!(
                    "line {number} has no {delimiter:?} between key and value"
                ))
            })?;
            (Some(key), value)
        }
    };
    // As kcat's -Z.
    let value = (!(args.null && value.is_empty())).then_some(value);
    Ok(json!({ "key": key, "value": value }))
}

fn headers(given: &[String]) -> Result<Vec<Value>> {
    let parse = |header: &String| match header.split_once('=') {
        Some((name, value)) => Ok(json!({ "name": name, "value": value })),
        None => Err(Failure::input(format!("--header {header}: must be NAME=VALUE"))),
    };
    given.iter().map(parse).collect()
}
