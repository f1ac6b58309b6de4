//! Topics, records and groups over HTTP, on a real log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidewater_plugin_api::{TopicPartition, TopicPartitionOffset};
use tidewater_rest::api::app;
use tidewater_runtime::broker::Broker;

struct Server {
    url: String,
    broker: Arc<dyn Broker>,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let api = support::api(&dir).await;
        let broker = api.worker.broker().clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app(api)).await });
        Self {
            url,
            broker,
            http: reqwest::Client::new(),
            _dir: dir,
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    /// The message of a call that must fail with `status`.
    async fn fault(&self, method: Method, path: &str, body: Option<Value>, status: u16) -> String {
        let (found, answer) = self.call(method.clone(), path, body).await;
        assert_eq!(found.as_u16(), status, "{method} {path}: {answer}");
        assert_eq!(answer["error_code"], status, "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_topic_is_created_described_altered_and_deleted() {
    let server = Server::start().await;
    let new = json!({"name": "orders", "partitions": 2, "config": {"retention.ms": 3_600_000, "cleanup.policy": "delete"}});
    let (status, made) = server.call(Method::POST, "/topics", Some(new.clone())).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        made["config"]["retention.ms"],
        json!({"value": "3600000", "source": "topic"})
    );
    assert_eq!(made["partitions"].as_array().unwrap().len(), 2);

    let (_, all) = server.get("/topics").await;
    let mine = all
        .as_array()
        .unwrap()
        .iter()
        .find(|topic| topic["name"] == "orders")
        .unwrap();
    assert_eq!(mine["partitions"], 2);
    assert_eq!(mine["id"], made["id"]);

    let change = json!({"partitions": 3, "config": {"retention.ms": null, "segment.ms": "60000"}});
    let (status, changed) = server.call(Method::PATCH, "/topics/orders", Some(change)).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(changed["config"]["retention.ms"]["source"], "default");
    assert_eq!(
        changed["config"]["segment.ms"],
        json!({"value": "60000", "source": "topic"})
    );
    assert_eq!(changed["partitions"].as_array().unwrap().len(), 3);

    let again = server.fault(Method::POST, "/topics", Some(new), 409).await;
    assert!(again.contains("orders"), "{again}");
    let (status, _) = server.call(Method::DELETE, "/topics/orders", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    server.fault(Method::GET, "/topics/orders", None, 404).await;
    server.fault(Method::DELETE, "/topics/orders", None, 404).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_said() {
    let server = Server::start().await;
    let typo = json!({"name": "orders", "config": {"retention.sm": "1"}});
    let message = server.fault(Method::POST, "/topics", Some(typo), 400).await;
    assert!(message.contains("retention.ms"), "{message}");
    let list = json!({"name": "orders", "config": {"cleanup.policy": ["compact"]}});
    let message = server.fault(Method::POST, "/topics", Some(list), 400).await;
    assert!(message.contains("cleanup.policy is a list"), "{message}");
    let field = json!({"nmae": "orders"});
    let message = server.fault(Method::POST, "/topics", Some(field), 400).await;
    assert!(message.contains("nmae"), "{message}");
    server.fault(Method::POST, "/topics", None, 400).await;
    server
        .fault(Method::DELETE, "/topics/connect-offsets", None, 403)
        .await;
    let own = json!({"name": "__mine"});
    server.fault(Method::POST, "/topics", Some(own), 403).await;
    server.fault(Method::GET, "/nothing", None, 404).await;
    server.fault(Method::PUT, "/topics", None, 405).await;
    let (_, made) = server
        .call(Method::POST, "/topics", Some(json!({"name": "orders"})))
        .await;
    assert_eq!(made["partitions"].as_array().unwrap().len(), 1);
    let fewer = json!({"partitions": 1});
    let message = server
        .fault(Method::PATCH, "/topics/orders", Some(fewer), 400)
        .await;
    assert!(message.contains("orders"), "{message}");
    for query in [
        "offset=ten",
        "offset=7",
        "max=100000",
        "partitoin=0",
        "offset=0&timestamp=1",
    ] {
        let path = format!("/topics/orders/records?{query}");
        server.fault(Method::GET, &path, None, 400).await;
    }
    server
        .fault(Method::GET, "/topics/orders/records?partition=1", None, 404)
        .await;
    server.fault(Method::GET, "/topics/none/records", None, 404).await;
    for record in [
        json!({"partition": 1, "value": "x"}),
        json!({"value": "x", "value_base64": "eA=="}),
        json!({"value_base64": "!"}),
        json!({"vlaue": "x"}),
    ] {
        let body = json!({"records": [record]});
        server
            .fault(Method::POST, "/topics/orders/records", Some(body), 400)
            .await;
    }
}

#[tokio::test]
async fn records_go_in_and_out_as_they_are() {
    let server = Server::start().await;
    server
        .call(
            Method::POST,
            "/topics",
            Some(json!({"name": "orders", "partitions": 2})),
        )
        .await;
    let new = json!({"records": [
        {"partition": 0, "timestamp": 1000, "key": "a", "value": "äpfel", "headers": [{"name": "h", "value": "1"}]},
        {"partition": 0, "timestamp": 2000, "key_base64": "/wA=", "value_base64": "/w=="},
        {"partition": 0, "timestamp": 3000, "key": "a"},
        {"partition": 1, "timestamp": 1500, "value": "pears"},
    ]});
    let (status, written) = server
        .call(Method::POST, "/topics/orders/records", Some(new))
        .await;
    assert_eq!(status, StatusCode::OK, "{written}");
    assert_eq!(written["partitions"], json!({"0": 3, "1": 1}));

    let (_, read) = server.get("/topics/orders/records").await;
    let records = read["records"].as_array().unwrap();
    assert_eq!(records.len(), 4);
    assert_eq!(
        records[0],
        json!({"partition": 0, "offset": 0, "timestamp": 1000, "key": "a", "value": "äpfel",
            "headers": [{"name": "h", "value": "1"}]})
    );
    assert_eq!(
        (
            &records[1]["key_base64"],
            &records[1]["value_base64"],
            &records[1]["value"]
        ),
        (&json!("/wA="), &json!("/w=="), &Value::Null)
    );
    assert_eq!(records[2]["value"], Value::Null, "a tombstone");
    assert_eq!(read["next"], json!({"0": 3, "1": 1}));

    // A page, and where it goes on.
    let (_, page) = server
        .get("/topics/orders/records?partition=0&offset=1&max=1")
        .await;
    assert_eq!(page["records"][0]["offset"], 1);
    assert_eq!(page["next"], json!({"0": 2}));
    let (_, rest) = server.get("/topics/orders/records?partition=0&offset=2").await;
    assert_eq!(rest["records"].as_array().unwrap().len(), 1);
    let (_, last) = server.get("/topics/orders/records?offset=-1").await;
    assert_eq!(last["records"].as_array().unwrap().len(), 2, "{last}");
    let (_, timed) = server.get("/topics/orders/records?timestamp=1500").await;
    let offsets: Vec<_> = timed["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["timestamp"].clone())
        .collect();
    assert_eq!(offsets, [json!(2000), json!(3000), json!(1500)]);
    let (_, none) = server.get("/topics/orders/records?offset=latest").await;
    assert_eq!(none, json!({"records": [], "next": {"0": 3, "1": 1}}));
}

#[tokio::test]
async fn a_call_can_wait_for_a_record() {
    let server = Server::start().await;
    server
        .call(
            Method::POST,
            "/topics",
            Some(json!({"name": "orders", "partitions": 2})),
        )
        .await;
    let waiting = server.get("/topics/orders/records?offset=latest&wait.ms=30000");
    let writing = async {
        let new = json!({"records": [{"partition": 1, "value": "x"}]});
        server
            .call(Method::POST, "/topics/orders/records", Some(new))
            .await
    };
    let ((_, read), _) = tokio::join!(biased; waiting, writing);
    // It may have begun before the record was there or after it.
    let records = read["records"].as_array().unwrap();
    assert!(records.len() == 1 || read["next"]["1"] == 1, "{read}");
}

#[tokio::test]
async fn groups_tell_how_far_they_are_behind() {
    let server = Server::start().await;
    server
        .call(Method::POST, "/topics", Some(json!({"name": "orders"})))
        .await;
    let new = json!({"records": [{"value": "1"}, {"value": "2"}, {"value": "3"}]});
    server
        .call(Method::POST, "/topics/orders/records", Some(new))
        .await;
    let offset = TopicPartitionOffset {
        partition: TopicPartition {
            topic: "orders".to_owned(),
            partition: 0,
        },
        offset: 1,
    };
    server
        .broker
        .commit_group_offsets("connect-sink", &[offset])
        .await
        .unwrap();

    let (_, groups) = server.get("/groups").await;
    assert_eq!(groups, json!([{"group": "connect-sink", "state": "Empty"}]));
    let (_, group) = server.get("/groups/connect-sink").await;
    assert_eq!(group["lag"], 2);
    assert_eq!(
        group["offsets"],
        json!([{"topic": "orders", "partition": 0, "committed_offset": 1, "end_offset": 3, "lag": 2}])
    );
    let (status, _) = server.call(Method::DELETE, "/groups/connect-sink", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let message = server.fault(Method::GET, "/groups/connect-sink", None, 404).await;
    assert!(message.contains("connect-"), "{message}");
    server.fault(Method::DELETE, "/groups/none", None, 404).await;
}

#[tokio::test]
async fn the_document_lists_every_route() {
    let server = Server::start().await;
    let (status, document) = server.get("/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    for (path, methods) in [
        ("/topics", vec!["get", "post"]),
        ("/topics/{topic}", vec!["get", "patch", "delete"]),
        ("/topics/{topic}/records", vec!["get", "post"]),
        ("/groups", vec!["get"]),
        ("/groups/{group}", vec!["get", "delete"]),
    ] {
        for method in methods {
            assert!(document["paths"][path][method].is_object(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn figures_are_those_of_the_log() {
    let server = Server::start().await;
    server
        .call(Method::POST, "/topics", Some(json!({"name": "orders"})))
        .await;
    let new = json!({"records": [{"value": "1"}, {"value": "2"}]});
    server
        .call(Method::POST, "/topics/orders/records", Some(new))
        .await;
    server.get("/topics/orders/records").await;
    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let text = text.as_str().expect("text");
    for line in [
        "tidewater_topic_records_in_total{topic=\"orders\",partition=\"0\"} 2",
        "tidewater_topic_records_out_total{topic=\"orders\",partition=\"0\"} 2",
        "tidewater_topic_high_watermark{topic=\"orders\",partition=\"0\"} 2.0",
        "# TYPE tidewater_log_fsync_seconds histogram",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("tidewater_log_fsync_seconds_count "));
    let upto = text
        .lines()
        .find_map(|line| line.strip_prefix("tidewater_log_fsync_seconds_bucket{le=\"+Inf\"} "));
    assert!(
        count.is_some_and(|count| count.parse::<u64>().unwrap() > 0) && count == upto,
        "{text}"
    );
}
