//! How fast the boundary is: `put` round trips into a sink that reads each record, by the size of a batch and the number
//! of calls in flight, and `poll` out of a source.
//!
//! `cargo build --release --examples -p tidewater-plugin-host && cargo run --release --example boundary -p tidewater-plugin-host`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewater_plugin_api::{ConfigMap, FrameBuilder, Schema, Type, Value};
use tidewater_plugin_host::{PluginDirs, PluginRegistry, SinkTaskHandle, TaskIdentity};

type Failure = Box<dyn std::error::Error>;

/// The bytes of a record's value.
const VALUE: usize = 200;
/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let registry = PluginRegistry::new(PluginDirs {
        search: vec![puppet()?],
        cache_dir: folder.path().to_owned(),
    });
    if let Some((path, error)) = registry.scan().refused.into_iter().next() {
        return Err(format!("{}: {error}", path.display()).into());
    }
    println!("{VALUE} B a record      round trips/s   M records/s");
    for depth in [1, 16] {
        for batch in [1, 100, 1000] {
            for encode in [true, false] {
                let rate = put(&registry, batch, depth, encode).await?;
                let what = if encode { "encoded each time" } else { "prebuilt" };
                println!(
                    "put  batch {batch:>4} depth {depth:>2} {rate:>12.0} {:>12.2}   {what}",
                    rate * batch as f64 / 1e6
                );
            }
        }
    }
    for batch in [1, 100, 1000] {
        let rate = poll(&registry, batch).await?;
        println!(
            "poll batch {batch:>4} depth  1 {rate:>12.0} {:>12.2}",
            rate * batch as f64 / 1e6
        );
    }
    Ok(())
}

/// The library of the test plugin: beside this program, or the one of another build that the first argument names.
fn puppet() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::args_os().nth(1) {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("libpuppet.so");
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is not there: build the examples first, with the same profile",
        path.display()
    )
    .into())
}

fn identity() -> TaskIdentity {
    TaskIdentity {
        connector: "boundary".into(),
        task: 0,
        generation: 1,
    }
}

fn frame(records: usize, schema: &Arc<Schema>, value: &Value) -> Result<Bytes, Failure> {
    let mut batch = FrameBuilder::new();
    for _ in 0..records {
        batch.push("boundary", None, (schema, value))?;
    }
    Ok(batch.finish())
}

async fn put(registry: &PluginRegistry, batch: usize, depth: usize, encode: bool) -> Result<f64, Failure> {
    let task = registry
        .find("puppet-sink")?
        .create_sink_task(identity(), ConfigMap::new())?;
    task.start().await?;
    let schema = Arc::new(Schema::new(Type::String));
    let value = Value::String("x".repeat(VALUE));
    let ready = frame(batch, &schema, &value)?;
    let begun = Instant::now();
    let one = |task: SinkTaskRef| {
        let (schema, value, ready) = (&schema, &value, &ready);
        async move {
            let mut done = 0u64;
            while begun.elapsed() < SPAN {
                let frame = if encode {
                    frame(batch, schema, value)?
                } else {
                    ready.clone()
                };
                task.put(frame).await?;
                done += 1;
            }
            Ok::<_, Failure>(done)
        }
    };
    let task: SinkTaskRef = Arc::new(task);
    let all = (0..depth).map(|_| one(task.clone()));
    let done: u64 = futures::future::try_join_all(all).await?.into_iter().sum();
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    task.stop(Duration::from_secs(1)).await?;
    Ok(rate)
}

type SinkTaskRef = Arc<SinkTaskHandle>;

async fn poll(registry: &PluginRegistry, batch: usize) -> Result<f64, Failure> {
    let config = [
        ("polls", i64::MAX.to_string()),
        ("records", batch.to_string()),
        ("bytes", VALUE.to_string()),
    ];
    let config = config.map(|(key, value)| (key.to_owned(), value)).into();
    let task = registry
        .find("puppet-source")?
        .create_source_task(identity(), config, Vec::new())?;
    task.start().await?;
    let begun = Instant::now();
    let mut done = 0u64;
    while begun.elapsed() < SPAN {
        let frame = task.poll().await?;
        assert_eq!(frame.len(), batch);
        done += 1;
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    task.stop(Duration::from_secs(1)).await?;
    Ok(rate)
}
