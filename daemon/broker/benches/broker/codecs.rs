//! What each compression codec costs and saves, from the record to the page cache and back.

use std::hint::black_box;
use std::time::Instant;

use tidewater_broker::{BatchBuilder, Broker, Compression, Isolation, Start};

use crate::figures::{Cell, Part, Spread};
use crate::load;
use crate::process::cpu_seconds;
use crate::{Bench, Result};

/// Records of a batch.
const RECORDS: usize = 500;

/// One round of one codec.
struct Round {
    /// Bytes stored, of as many records as `none` takes `plain` for.
    stored: u64,
    append_cpu: f64,
    read_cpu: f64,
    append_rate: f64,
    read_rate: f64,
}

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "codecs",
        "Records of about 120 bytes of JSON, 500 to a batch, appended by one thread with durability `os` and read back \
         from the page\ncache by one thread. The codecs take turns. CPU is that of the whole process.",
        &[
            "codec",
            "bytes a record",
            "append M/s",
            "append CPU s/M",
            "read M/s",
            "read CPU s/M",
        ],
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let broker = load::open(&bench.dir.join("codecs"))?;
    let total = bench.pick(1_000_000, 200_000);
    let values = documents();
    let codecs = [
        Compression::None,
        Compression::Lz4,
        Compression::Snappy,
        Compression::Zstd,
        Compression::Gzip,
    ];
    let mut rounds: Vec<Vec<Round>> = codecs.iter().map(|_| Vec::new()).collect();
    for round in 0..bench.pick(bench.rounds, 1) {
        for (codec, rounds) in codecs.iter().zip(&mut rounds) {
            bench
                .progress
                .step(&format!("codecs: {codec}, round {}", round + 1));
            rounds.push(runtime.block_on(one(&broker, *codec, &values, total))?);
        }
    }
    for (codec, rounds) in codecs.iter().zip(&rounds) {
        let of = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
        part.row(vec![
            Cell::text(codec.to_string()),
            Cell::number(rounds[0].stored as f64 / total as f64, 1),
            of(|r| r.append_rate).cell(2),
            of(|r| r.append_cpu).cell(3),
            of(|r| r.read_rate).cell(2),
            of(|r| r.read_cpu).cell(3),
        ]);
    }
    runtime.block_on(broker.close())?;
    Ok(part)
}

/// Documents alike as rows of a table are.
fn documents() -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(5);
    let document = |id| {
        let (city, cents) = (random.u32(0..1_000), random.u32(0..100_000));
        let email = random.u64(..) % 1_000_000_000;
        format!(
            r#"{{"id":{id},"email":"user{email}@example.com","city":"city-{city}","balance":{}.{:02},"active":true,"tags":["a","b"]}}"#,
            cents / 100,
            cents % 100
        )
    };
    (0..RECORDS).map(document).collect()
}

async fn one(broker: &Broker, codec: Compression, values: &[String], total: usize) -> Result<Round> {
    let millions = total as f64 / 1e6;
    broker.create_topic("t", load::topic(1, "os")).await?;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    for _ in 0..total / RECORDS {
        let mut batch = BatchBuilder::new(codec);
        for (i, value) in values.iter().enumerate() {
            let key = (i as u64).to_be_bytes();
            batch.push(1_700_000_000_000, Some(&key), Some(value.as_bytes()), &[]);
        }
        broker.append("t", 0, batch).await?;
    }
    let (append_seconds, append_cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let (mut stored, mut content) = (0, 0);
    let mut reader = broker.reader("t", 0, Start::Earliest, Isolation::ReadCommitted)?;
    while let Some(fetched) = reader.try_next(1 << 20)? {
        stored += fetched.data().len() as u64;
        content += fetched
            .records()
            .map(|r| r.value.map_or(0, <[u8]>::len))
            .sum::<usize>();
    }
    black_box(content);
    let (read_seconds, read_cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    drop(reader);
    broker.delete_topic("t").await?;
    Ok(Round {
        stored,
        append_cpu: append_cpu / millions,
        read_cpu: read_cpu / millions,
        append_rate: millions / append_seconds,
        read_rate: millions / read_seconds,
    })
}
