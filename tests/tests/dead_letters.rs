//! Records that are filtered, and records that cannot be taken further: the others pass, and each of those is in the dead-letter
//! topic, as it was, or stops the task where nothing else was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use tidewater_tests::Result;
use tidewater_tests::connector_file::ConnectorFile;
use tidewater_tests::daemon::{Daemon, DaemonOptions};
use tidewater_tests::lines::LineCount;
use tidewater_tests::settle::QUIET;
use tidewater_tests::stand::check_ledgers;
use tidewater_tests::topics;
use tidewater_tests::work_dir::WorkDir;

/// A file of orders, its source, and a sink that takes them for JSON.
struct Orders {
    work: WorkDir,
    path: PathBuf,
    output: LineCount,
    options: DaemonOptions,
    written: u64,
}

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Good,
    /// A transform of the source drops it.
    Skipped,
    /// A transform of the source cannot take it.
    Headless,
    /// The converter of the sink cannot take it.
    Poison,
    /// A transform of the sink drops it.
    Small,
}

/// Of twenty lines these are not good.
fn kind(number: u64) -> Line {
    match number % 20 {
        3 => Line::Skipped,
        7 => Line::Headless,
        11 => Line::Poison,
        13 => Line::Small,
        _ => Line::Good,
    }
}

fn text(number: u64) -> String {
    match kind(number) {
        Line::Good => format!("{{\"id\":{number},\"total\":100}}"),
        Line::Skipped => format!("skip {number}"),
        Line::Headless => format!("?{number}"),
        Line::Poison => format!("{{\"id\":{number},"),
        Line::Small => format!("{{\"id\":{number},\"total\":1}}"),
    }
}

impl Orders {
    fn set_up(tolerance: &str) -> Result<Self> {
        let work = WorkDir::new()?;
        let (path, out) = (work.join("orders.log"), work.join("orders.jsonl"));
        let tolerant = |file: ConnectorFile, dead_letters: &str| {
            file.with("errors.tolerance", tolerance)
                .with("errors.deadletterqueue.topic.name", dead_letters)
                .with("errors.deadletterqueue.context.headers.enable", true)
        };
        let source = ConnectorFile::new("orders-source", "file-source")
            .with("file", path.display())
            .with("topic", "raw")
            .with("value.converter", "string")
            .with("transforms", "live,whole,route")
            .with("transforms.live.type", "ExpressionFilter")
            .with("transforms.live.condition", "!value.startsWith('skip')")
            // An index that is not there is an error, and not a condition that is not met.
            .with("transforms.whole.type", "ExpressionFilter")
            .with(
                "transforms.whole.condition",
                "value.startsWith('?') ? [true][1] : true",
            )
            .with("transforms.route.type", "RegexRouter")
            .with("transforms.route.regex", "raw")
            .with("transforms.route.replacement", "orders");
        let sink = ConnectorFile::new("orders-sink", "file-sink")
            .with("file", out.display())
            .with("topics", "orders")
            .with("value.converter", "json")
            .with("value.converter.schemas.enable", false)
            .with("transforms", "large,route")
            .with("transforms.large.type", "ExpressionFilter")
            .with("transforms.large.condition", "value.total > 10")
            .with("transforms.route.type", "RegexRouter")
            .with("transforms.route.regex", "orders")
            .with("transforms.route.replacement", "purchases");
        let mut options = DaemonOptions::new(work.join("data"));
        options.connectors = vec![
            tolerant(source, "source-dead").write(&work)?,
            tolerant(sink, "sink-dead").write(&work)?,
        ];
        Ok(Self {
            output: LineCount::watch(&out)?,
            work,
            path,
            options,
            written: 0,
        })
    }

    fn append(&mut self, lines: u64) {
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        let mut file = file.expect("the file opens");
        for _ in 0..lines {
            writeln!(file, "{}", text(self.written)).expect("the file takes a line");
            self.written += 1;
        }
    }

    fn of(&self, wanted: Line) -> Vec<u64> {
        (0..self.written)
            .filter(|&number| kind(number) == wanted)
            .collect()
    }

    async fn arrived(&mut self, daemon: &Daemon) -> Result<()> {
        let good = self.of(Line::Good).len() as u64;
        let found = self.output.reach(good, QUIET).await?;
        assert_eq!(found, good, "lines that have arrived\n{}", daemon.log_tail());
        Ok(())
    }

    /// Every good line once and in order, and no other.
    fn check_output(&self) {
        let output = fs::read_to_string(self.work.join("orders.jsonl")).expect("the output is there");
        let found: Vec<u64> = output
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"))
            .map(|order| order["id"].as_u64().expect("an order has an id"))
            .collect();
        assert_eq!(found, self.of(Line::Good));
    }

    /// The values of a topic.
    async fn topic(&self, name: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        topics::visit(&self.options.data_dir, name, |record| {
            let value = record.value.unwrap_or_default();
            values.push(String::from_utf8_lossy(value).into_owned());
            Ok(())
        })
        .await?;
        Ok(values)
    }
}

#[tokio::test]
async fn a_tolerant_pipeline_goes_on_and_loses_nothing_through_kills() -> Result<()> {
    let mut orders = Orders::set_up("all")?;
    orders.append(1000);
    let mut daemon = Daemon::start(&orders.options)?;
    orders.arrived(&daemon).await?;
    for _ in 0..3 {
        orders.append(3000);
        orders.output.reach(orders.written / 2, QUIET).await?;
        daemon.kill_now();
        daemon = Daemon::start(&orders.options)?;
    }
    // Lines that pass after all others: when they are there, so is everything before them.
    orders.append(20);
    orders.arrived(&daemon).await?;
    daemon.stop().await?;
    check_ledgers(&daemon, &["orders-source", "orders-sink"])?;
    orders.check_output();

    // The source's are in the transaction of the others, and so there once; as JSON with their schema.
    let payload = |value: &String| {
        let json: serde_json::Value = serde_json::from_str(value).expect("a dead letter is JSON");
        json["payload"].as_str().expect("a line").to_owned()
    };
    let of_source: Vec<_> = orders.topic("source-dead").await?.iter().map(payload).collect();
    let headless: Vec<_> = orders.of(Line::Headless).into_iter().map(text).collect();
    assert_eq!(of_source, headless);

    // The sink's may be there again after a kill, but each is there, as it was.
    let of_sink: BTreeSet<_> = orders.topic("sink-dead").await?.into_iter().collect();
    let poison: BTreeSet<_> = orders.of(Line::Poison).into_iter().map(text).collect();
    assert_eq!(of_sink, poison);
    Ok(())
}

#[tokio::test]
async fn the_books_say_what_became_of_each_record() -> Result<()> {
    let mut orders = Orders::set_up("all")?;
    orders.append(200);
    let mut daemon = Daemon::start(&orders.options)?;
    orders.arrived(&daemon).await?;
    daemon.stop().await?;
    let books: BTreeMap<_, _> = check_ledgers(&daemon, &["orders-source", "orders-sink"])?;
    let counted = |connector: &str| {
        let books = books[&(connector.to_owned(), 0)];
        (
            books.read,
            books.written,
            books.filtered,
            books.dead_lettered,
            books.dropped,
        )
    };
    assert_eq!(counted("orders-source"), (200, 180, 10, 10, 0));
    assert_eq!(counted("orders-sink"), (180, 160, 10, 10, 0));
    Ok(())
}

#[tokio::test]
async fn without_tolerance_the_first_such_record_stops_its_task_and_is_named() -> Result<()> {
    let mut orders = Orders::set_up("none")?;
    orders.append(7);
    let mut daemon = Daemon::start(&orders.options)?;
    orders.arrived(&daemon).await?;
    orders.append(1);
    daemon.wait_for_trouble(0, &["transform whole"]).await?;
    daemon.stop().await?;
    assert_eq!(orders.topic("source-dead").await?, Vec::<String>::new());
    assert_eq!(orders.topic("orders").await?.len(), 6, "and nothing after it");
    Ok(())
}
