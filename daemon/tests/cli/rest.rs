//! The REST API of a running daemon, and the commands that call it.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::folder::{Ended, Folder};

/// Long enough for any machine: it only ends a test that has failed.
const PATIENCE: Duration = Duration::from_mins(1);

const SINK: &str = "connector.class = \"file-sink\"\nfile = \"out.jsonl\"\ntopics = \"lines\"\nvalue.converter = \"string\"\n";

/// A daemon with its API on a port of its own.
struct Served {
    folder: Folder,
    daemon: Daemon,
    url: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(args: &[&str]) -> Self {
        let folder = Folder::with(&[("in.log", "one\ntwo\n"), ("sink.toml", SINK)]);
        let source = format!(
            "connector.class = \"FileStreamSource\"\nfile = \"{}\"\ntopic = \"lines\"\nvalue.converter = \"string\"\n",
            folder.path("in.log").display()
        );
        folder.write("source.toml", &source);
        let mut all = vec!["run"];
        all.extend(args);
        Self::on(folder, &all)
    }

    fn on(folder: Folder, args: &[&str]) -> Self {
        let mut command = folder.command(args);
        command.env("TIDEWATER_LISTENERS", "http://127.0.0.1:0");
        let mut daemon = Daemon::start(command);
        let line = daemon.wait_for("rest=");
        let url = line
            .split("rest=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let url = url.expect("the address").to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = Self {
            folder,
            daemon,
            url,
            http: reqwest::Client::new(),
            runtime: runtime.expect("a runtime"),
        };
        served.until("it serves", || served.get("/health/live").0 == StatusCode::OK);
        served
    }

    fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.runtime.block_on(async {
            let Ok(answer) = request.send().await else {
                return (StatusCode::SERVICE_UNAVAILABLE, Value::Null);
            };
            let status = answer.status();
            let text = answer.text().await.expect("a body");
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None)
    }

    /// A call that must fail with `status`; what it says.
    #[track_caller]
    fn refused(&self, method: Method, path: &str, body: Option<Value>, status: u16) -> String {
        let (found, answer) = self.call(method, path, body);
        assert_eq!(
            (found.as_u16(), &answer["error_code"]),
            (status, &json!(status)),
            "{answer}"
        );
        answer["message"].as_str().expect("a message").to_owned()
    }

    /// Runs a command against it.
    fn cli(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().expect("the program starts"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.folder.command(args);
        command.env("TIDEWATER_URL", &self.url);
        command
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < PATIENCE,
                "not in time: {what}; {:#?}",
                self.daemon.log
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn state(&self, connector: &str) -> (String, Vec<String>) {
        let (_, status) = self.get(&format!("/connectors/{connector}/status"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
        (
            text(&status["connector"]["state"]),
            tasks.iter().map(|task| text(&task["state"])).collect(),
        )
    }

    fn runs(&self, connector: &str) -> bool {
        self.state(connector) == ("RUNNING".to_owned(), vec!["RUNNING".to_owned()])
    }

    fn stop(self) -> (Folder, Vec<String>) {
        let mut daemon = self.daemon;
        daemon.signal(Signal::TERM);
        daemon.wait_for("stopped");
        let (status, _, log) = daemon.end();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        (self.folder, log)
    }
}

#[test]
fn connectors_live_by_the_commands_that_look_after_them() {
    let served = Served::start(&[]);
    served.cli(&["connectors", "ls"]).code(0).prints("no connectors");
    served
        .cli(&["connectors", "create", "source.toml", "--state", "stopped"])
        .code(0)
        .prints("source is created");
    assert_eq!(served.state("source"), ("STOPPED".to_owned(), vec![]));
    served
        .cli(&["connectors", "create", "source.toml"])
        .code(2)
        .complains("already exists");
    served
        .cli(&["connectors", "apply", "sink.toml", "--dry-run"])
        .code(0)
        .prints("would be created");
    served.refused(Method::GET, "/connectors/sink", None, 404);
    served
        .cli(&["connectors", "apply", "sink.toml"])
        .code(0)
        .prints("sink is created");
    served.cli(&["connectors", "resume", "source"]).code(0);
    served.until("both run", || served.runs("source") && served.runs("sink"));
    let out = served.folder.path("out.jsonl");
    served.until("the lines are there", || {
        std::fs::read_to_string(&out).is_ok_and(|text| text == "\"one\"\n\"two\"\n")
    });
    assert_eq!(served.get("/health/ready").0, StatusCode::OK);

    // A paused source reads nothing, and goes on where it was.
    served.cli(&["connectors", "pause", "source"]).code(0);
    served.until("it rests", || served.state("source").1 == ["PAUSED"]);
    served.cli(&["connectors", "resume", "source"]).code(0);
    served
        .cli(&["connectors", "restart", "source", "--include-tasks"])
        .code(0);
    served
        .cli(&["connectors", "restart", "source", "--task", "7"])
        .code(2)
        .complains("no task 7");
    served.until("it runs again", || served.runs("source"));

    // Offsets change while it is stopped, and not before.
    let offsets = served.cli(&["connectors", "offsets", "source"]).code(0).json();
    assert_eq!(offsets["offsets"].as_array().map(Vec::len), Some(1), "{offsets}");
    served
        .cli(&["connectors", "offsets", "source", "--reset"])
        .code(2)
        .complains("STOPPED");
    served.cli(&["connectors", "stop", "source"]).code(0);
    served
        .cli(&["connectors", "offsets", "source", "--reset"])
        .code(0)
        .prints("altered successfully");
    served.cli(&["connectors", "resume", "source"]).code(0);
    served.until("the lines are there twice", || {
        std::fs::read_to_string(&out).is_ok_and(|text| text.lines().count() == 4)
    });

    served
        .cli(&["connectors", "apply", "sink.toml"])
        .code(0)
        .prints("is as the file says");
    let changed = format!("{SINK}tasks.max = 2\n");
    served.folder.write("sink.toml", &changed);
    served
        .cli(&["connectors", "apply", "sink.toml", "--dry-run"])
        .code(0)
        .prints("+ tasks.max = 2");
    served
        .cli(&["connectors", "apply", "sink.toml"])
        .code(0)
        .prints("sink is changed");
    let ls = served.cli(&["connectors", "ls"]).code(0);
    assert!(
        ls.stdout.contains("FileStreamSource") && ls.stdout.contains("RUNNING"),
        "{ls:#?}"
    );
    let all = served.cli(&["connectors", "ls", "--json"]).code(0).json();
    assert_eq!(all["sink"]["info"]["config"]["tasks.max"], "2");
    served
        .cli(&["connectors", "show", "sink"])
        .code(0)
        .prints("tasks.max");
    served.cli(&["connectors", "delete", "source"]).code(0);
    served
        .cli(&["connectors", "show", "source"])
        .code(2)
        .complains("no connector source");

    // What was created by request runs again at the next start, as it was wanted.
    let (folder, _) = served.stop();
    let served = Served::on(folder, &["run"]);
    served.until("the sink runs", || served.state("sink").0 == "RUNNING");
    assert_eq!(served.get("/connectors").1, json!(["sink"]));
    served.stop();
}

#[test]
fn records_are_written_and_read_as_kcat_does() {
    let served = Served::start(&[]);
    served
        .cli(&[
            "topics",
            "create",
            "orders",
            "--partitions",
            "2",
            "--config",
            "segment.ms=60000",
        ])
        .code(0);
    served
        .cli(&["topics", "create", "orders"])
        .code(2)
        .complains("orders");
    served
        .cli(&["topics", "create", "x", "--config", "retention.sm=1"])
        .code(2)
        .complains("retention.ms");
    served.cli(&["topics", "ls"]).code(0).prints("orders");
    served
        .cli(&["topics", "show", "orders"])
        .code(0)
        .prints("segment.ms");
    served.folder.write("lines", "a:apples\nb:pears\na:\n");
    let stdin = std::fs::File::open(served.folder.path("lines")).expect("there");
    let produce = ["produce", "orders", "-p", "1", "-K", ":", "-Z", "-H", "by=me"];
    let produced = served.command(&produce).stdin(stdin).output().expect("it starts");
    Ended::of(produced).code(0).complains("3 written");
    let format = ["consume", "orders", "-e", "-f", "%p:%o %k=%s %h\\n"];
    let consumed = served.cli(&format).code(0);
    assert_eq!(
        consumed.stdout,
        "1:0 a=apples by=me\n1:1 b=pears by=me\n1:2 a= by=me\n"
    );
    let last = served
        .cli(&["consume", "orders", "-e", "-o", "-1", "--json"])
        .code(0)
        .json();
    assert_eq!((&last["offset"], &last["value"]), (&json!(2), &Value::Null));
    let two = served.cli(&["consume", "orders", "-p", "1", "-c", "2"]).code(0);
    assert_eq!(two.stdout, "apples\npears\n");
    served
        .cli(&["consume", "orders", "-f", "%q"])
        .code(2)
        .complains("%q");
    served
        .cli(&["consume", "orders", "-p", "2"])
        .code(2)
        .complains("no partition 2");
    served.cli(&["groups", "ls"]).code(0);
    served
        .cli(&["groups", "show", "none"])
        .code(2)
        .complains("no group none");
    served
        .cli(&[
            "topics",
            "alter",
            "orders",
            "--partitions",
            "3",
            "--config",
            "segment.ms=",
        ])
        .code(0);
    served.cli(&["topics", "delete", "orders"]).code(0);
    served.cli(&["consume", "orders"]).code(2).complains("orders");
    served.stop();
}

#[test]
fn connects_clients_find_what_they_know() {
    let served = Served::start(&[]);
    let (_, server) = served.get("/");
    assert!(
        server["version"].is_string() && server["kafka_cluster_id"].is_string(),
        "{server}"
    );
    assert_eq!(served.get("/health").1["status"], "healthy");
    let file = served.folder.path("in.log");
    let config = json!({"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "tasks.max": 1, "file": file, "topic": "lines"});
    let new = json!({"name": "src", "config": config, "initial_state": "PAUSED"});
    let (status, info) = served.call(Method::POST, "/connectors", Some(new.clone()));
    assert_eq!(
        (status, &info["type"]),
        (StatusCode::CREATED, &json!("source")),
        "{info}"
    );
    assert_eq!(info["config"]["tasks.max"], "1");
    served.refused(Method::POST, "/connectors", Some(new), 409);

    // What is wrong with a configuration is all said at once, and nothing is created.
    let bad = json!({"connector.class": "FileStreamSource", "tasks.max": "none", "topic": ""});
    let message = served.refused(
        Method::POST,
        "/connectors",
        Some(json!({"name": "bad", "config": bad.clone()})),
        400,
    );
    assert!(
        message.contains("error(s)") && message.contains("tasks.max"),
        "{message}"
    );
    served.refused(Method::GET, "/connectors/bad", None, 404);
    let path = "/connector-plugins/FileStreamSource/config/validate";
    let (status, infos) = served.call(Method::PUT, path, Some(bad));
    assert_eq!(status, StatusCode::OK);
    assert!(infos["error_count"].as_u64() >= Some(2), "{infos}");
    let of = |name: &str| {
        let all = infos["configs"].as_array().expect("configs");
        let found = all.iter().find(|info| info["definition"]["name"] == name);
        found.cloned().unwrap_or_default()
    };
    assert!(
        !of("tasks.max")["value"]["errors"]
            .as_array()
            .expect("errors")
            .is_empty(),
        "{infos}"
    );
    assert_eq!(of("topic")["definition"]["required"], true, "{infos}");
    let other = json!({"connector.class": "FileStreamSink"});
    served.refused(Method::PUT, path, Some(other), 400);
    let message = served.refused(Method::GET, "/connector-plugins/file-sorce/config", None, 404);
    assert!(message.contains("file-source"), "{message}");
    let (_, plugins) = served.get("/connector-plugins?connectorsOnly=false");
    let kinds: Vec<_> = plugins
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| p["type"].clone())
        .collect();
    for kind in [
        "source",
        "sink",
        "converter",
        "header_converter",
        "transformation",
        "predicate",
    ] {
        assert!(kinds.contains(&json!(kind)), "{kind}: {plugins}");
    }

    // PUT and PATCH; null takes a key away; a name that disagrees is refused.
    let path = "/connectors/src/config";
    let (status, info) = served.call(
        Method::PATCH,
        path,
        Some(json!({"batch.size": 10, "tasks.max": null})),
    );
    assert_eq!(status, StatusCode::OK, "{info}");
    assert_eq!(
        (&info["config"]["batch.size"], &info["config"]["tasks.max"]),
        (&json!("10"), &Value::Null)
    );
    served.refused(Method::PATCH, path, Some(json!({"name": "other"})), 400);
    served.refused(Method::PATCH, path, Some(json!({"batch.size": [1]})), 400);
    let (status, _) = served.call(Method::PUT, path, Some(config.clone()));
    assert_eq!(status, StatusCode::OK);
    let (status, _) = served.call(Method::PUT, "/connectors/new/config", Some(config));
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(served.get(path).1["batch.size"], Value::Null);

    let (_, expanded) = served.get("/connectors?expand=status&expand=info&expand=nonsense");
    assert_eq!(expanded["src"]["info"]["name"], "src");
    assert_eq!(expanded["src"]["status"]["name"], "src");
    served.refused(Method::GET, "/connectors/src/topics", None, 403);
    let (status, _) = served.call(Method::PUT, "/connectors/src/resume", None);
    assert_eq!(status, StatusCode::ACCEPTED);
    served.until("it runs", || served.runs("src"));
    assert_eq!(served.get("/connectors/src/tasks/0/status").1["state"], "RUNNING");
    assert_eq!(
        served.get("/connectors/src/tasks").1[0]["id"],
        json!({"connector": "src", "task": 0})
    );
    let (status, _) = served.call(Method::POST, "/connectors/src/restart", None);
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, shown) = served.call(Method::POST, "/connectors/src/restart?includeTasks=true", None);
    assert_eq!(
        (status, &shown["connector"]["state"]),
        (StatusCode::ACCEPTED, &json!("RESTARTING")),
        "{shown}"
    );
    let (status, _) = served.call(Method::POST, "/connectors/src/tasks/0/restart", None);
    assert_eq!(status, StatusCode::NO_CONTENT);
    served.refused(Method::POST, "/connectors/src/tasks/5/restart", None, 404);
    served.refused(Method::PUT, "/connectors/none/pause", None, 404);
    let (status, _) = served.call(Method::DELETE, "/connectors/src", None);
    assert_eq!(status, StatusCode::NO_CONTENT);
    served.refused(Method::DELETE, "/connectors/src", None, 404);

    let (_, loggers) = served.get("/admin/loggers");
    assert_eq!(loggers["root"]["level"], "INFO");
    let level = Some(json!({"level": "debug"}));
    let (status, changed) = served.call(Method::PUT, "/admin/loggers/tidewater_broker", level.clone());
    assert_eq!((status, changed), (StatusCode::OK, json!(["tidewater_broker"])));
    assert_eq!(served.get("/admin/loggers/tidewater_broker").1["level"], "DEBUG");
    let (status, _) = served.call(Method::PUT, "/admin/loggers/root?scope=cluster", level);
    assert_eq!(status, StatusCode::NO_CONTENT);
    served.refused(
        Method::PUT,
        "/admin/loggers/root",
        Some(json!({"level": "loud"})),
        404,
    );
    served.refused(Method::PUT, "/admin/loggers/root", Some(json!({})), 400);

    let (_, metrics) = served.get("/metrics");
    let metrics = metrics.as_str().expect("text").to_owned();
    assert!(
        metrics.contains("tidewater_connector_running{connector=\"new\"}"),
        "{metrics}"
    );
    served.stop();
}

#[test]
fn what_cannot_be_reached_is_said() {
    let folder = Folder::with(&[]);
    let ended = folder.run(&["connectors", "ls", "--url", "http://127.0.0.1:1"]);
    ended.code(3).complains("tidewater run");
    folder
        .run(&["run", "--listen", "ftp://x"])
        .code(2)
        .complains("http://host:port");
    folder
        .run(&["run", "--listen", "http://0.0.0.0:0"])
        .code(2)
        .complains("rest.users.file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", taken.local_addr().expect("its address"));
    folder
        .run(&["run", "--listen", &address])
        .code(3)
        .complains("--listen");
}
