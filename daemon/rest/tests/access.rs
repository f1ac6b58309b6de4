//! Who may call, and where: users, tokens, roles, TLS, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use tidewater_rest::access::{hash_password, hash_token};
use tidewater_rest::api::app;
use tidewater_rest::listener::{ListenError, Listener, ListenerConfig, Serving};

struct Secured {
    url: String,
    users: PathBuf,
    certificate: String,
    _serving: Serving,
    _dir: tempfile::TempDir,
}

fn users(alice: &str) -> String {
    let hash = hash_password(alice).unwrap();
    let (ci, eye) = (hash_token("ci-token"), hash_token("eye-token"));
    format!(
        "[users.alice]\nrole = \"admin\"\npassword = \"{hash}\"\n\
         [tokens.ci]\nrole = \"operator\"\nsha256 = \"{ci}\"\n[tokens.eye]\nrole = \"viewer\"\nsha256 = \"{eye}\"\n"
    )
}

impl Secured {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let users = file("users.toml", &users("wonderland"));
        let listener = Listener::bind(&ListenerConfig {
            addresses: vec!["https://localhost:0".parse().unwrap()],
            certificate: Some(file("cert.pem", &certificate)),
            key: Some(file("key.pem", &made.signing_key.serialize_pem())),
            users: Some(users.clone()),
            allow_anonymous: false,
        })
        .unwrap();
        let port = listener.addresses()[0].rsplit(':').next().unwrap().to_owned();
        let api = support::api(&dir).await;
        let serving = listener.serve(app(api)).unwrap();
        Self {
            url: format!("https://localhost:{port}"),
            users,
            certificate,
            _serving: serving,
            _dir: dir,
        }
    }

    fn http(&self) -> Client {
        let root = reqwest::Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        Client::builder().tls_certs_only([root]).build().unwrap()
    }
}

#[tokio::test]
async fn each_role_may_do_its_part_and_nobody_else_anything() {
    let secured = Secured::start().await;
    let http = secured.http();
    let call = |method: Method, path: &str| http.request(method, format!("{}{path}", secured.url));
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    let refused = call(Method::GET, "/topics").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(
        refused.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("Basic")
    );
    let body: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(body["error_code"], 401);
    for wrong in [
        call(Method::GET, "/topics").basic_auth("alice", Some("wonder")),
        call(Method::GET, "/topics").basic_auth("bob", Some("wonderland")),
        call(Method::GET, "/topics").bearer_auth("ci-tokem"),
        call(Method::GET, "/topics").header("Authorization", "Digest x"),
        call(Method::GET, "/topics").header("Authorization", "Basic !"),
    ] {
        assert_eq!(status(wrong).await, 401);
    }
    let new = json!({"name": "orders"});
    assert_eq!(
        status(call(Method::GET, "/topics").bearer_auth("eye-token")).await,
        200
    );
    assert_eq!(
        status(call(Method::POST, "/topics").bearer_auth("eye-token").json(&new)).await,
        403
    );
    assert_eq!(
        status(call(Method::POST, "/topics").bearer_auth("ci-token").json(&new)).await,
        403
    );
    // The second time from what is remembered.
    assert_eq!(
        status(
            call(Method::POST, "/topics")
                .basic_auth("alice", Some("wonderland"))
                .json(&new)
        )
        .await,
        201
    );
    assert_eq!(
        status(
            call(Method::POST, "/topics")
                .basic_auth("alice", Some("wonderland"))
                .json(&new)
        )
        .await,
        409
    );
}

#[tokio::test]
async fn users_change_without_a_restart_and_a_broken_file_changes_nothing() {
    let secured = Secured::start().await;
    let http = secured.http();
    let status = async |password: &str| {
        let request = http.get(format!("{}/topics", secured.url));
        request
            .basic_auth("alice", Some(password))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(status("wonderland").await, 200);
    std::fs::write(&secured.users, "[users.alice]\nrole = ").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(status("wonderland").await, 200);
    std::fs::write(&secured.users, users("looking-glass")).unwrap();
    while status("wonderland").await != 401 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status("looking-glass").await, 200);
}

#[test]
fn what_would_be_open_to_everybody_is_refused_unless_it_is_meant() {
    let open = |allow_anonymous| ListenerConfig {
        addresses: vec!["http://0.0.0.0:0".parse().unwrap()],
        allow_anonymous,
        ..ListenerConfig::default()
    };
    let refused = Listener::bind(&open(false)).err().unwrap().to_string();
    assert!(refused.contains("rest.users.file"), "{refused}");
    assert!(Listener::bind(&open(true)).is_ok());
}

#[test]
fn faults_of_files_and_addresses_say_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.toml");
    let with_users = |text: &str| {
        std::fs::write(&users, text).unwrap();
        let config = ListenerConfig {
            users: Some(users.clone()),
            ..ListenerConfig::default()
        };
        Listener::bind(&config).err().expect("a fault").to_string()
    };
    assert!(with_users("").contains("nobody could call"));
    assert!(with_users("[users.a]\nrole = \"boss\"\npassword = \"x\"").contains("boss"));
    assert!(
        with_users("[users.a]\nrole = \"admin\"\npassword = \"secret\"")
            .contains("users.a.password is no hash")
    );
    assert!(!with_users("[users.a]\nrole = \"admin\"\npassword = \"secret\"").contains("secret"));
    assert!(with_users("[tokens.t]\nrole = \"admin\"\nsha256 = \"12\"").contains("tokens.t.sha256"));
    let missing = ListenerConfig {
        users: Some(dir.path().join("none")),
        ..ListenerConfig::default()
    };
    assert!(matches!(Listener::bind(&missing), Err(ListenError::Access(_))));
    let bare = ListenerConfig {
        addresses: vec!["https://127.0.0.1:0".parse().unwrap()],
        ..ListenerConfig::default()
    };
    assert!(
        Listener::bind(&bare)
            .err()
            .unwrap()
            .to_string()
            .contains("rest.tls.certificate")
    );
    let first = ListenerConfig {
        addresses: vec!["http://127.0.0.1:0".parse().unwrap()],
        ..ListenerConfig::default()
    };
    let taken = Listener::bind(&first).unwrap();
    let again = ListenerConfig {
        addresses: vec![taken.addresses()[0].parse().unwrap()],
        ..ListenerConfig::default()
    };
    assert!(matches!(Listener::bind(&again), Err(ListenError::Bind { .. })));
}
