//! Calls to a running daemon's REST API.

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::ClientArgs;
use crate::exit::{Failure, Result};

/// A daemon that can be called.
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    user: Option<(String, String)>,
}

/// Characters of a name that stand in a path as they are.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// A name as a part of a path.
pub fn segment(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        if is_plain(byte) {
            path.push(byte as char);
            continue;
        }
        path.push('%');
        for digit in [byte >> 4, byte & 15] {
            path.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    path
}

impl Client {
    /// The daemon of `args`; nothing is called yet.
    pub fn new(args: &ClientArgs) -> Result<Self> {
        let mut builder = reqwest::Client::builder();
        if let Some(path) = &args.ca {
            let unusable =
                |error: &dyn std::fmt::Display| Failure::input(format!("--ca {}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| unusable(&error))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder
            .build()
            .map_err(|error| Failure::runtime(format!("cannot make an HTTP client: {error}")))?;
        let user = match args.user.as_deref().map(|user| user.split_once(':')) {
            None => None,
            Some(Some((name, password))) => Some((name.to_owned(), password.to_owned())),
            Some(None) => return Err(Failure::input("--user must be NAME:PASSWORD")),
        };
        Ok(Self {
            http,
            url: args.url.trim_end_matches('/').to_owned(),
            token: args.token.clone(),
            user,
        })
    }

    /// Calls, and gives the body; an error of the daemon in its own words.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        } else if let Some((name, password)) = &self.user {
            request = request.basic_auth(name, Some(password));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.unreachable(&error))?;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(body);
        }
        let message = match body.get("message").and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => format!("{} answered {status}; is it a Tidewater daemon?", self.url),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::environment(format!(
                "{message} (--token or TIDEWATER_TOKEN, --user or TIDEWATER_USER)"
            )),
            status if status.is_client_error() => Failure::input(message),
            _ => Failure::runtime(message),
        })
    }

    /// As [`call`](Self::call) with `GET`, into a type.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.call(Method::GET, path, None).await?;
        serde_json::from_value(body).map_err(|error| {
            Failure::runtime(format!(
                "the answer of {} to {path} is not understood ({error}); is it of another version?",
                self.url
            ))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Failure::environment(format!(
            "cannot reach a daemon at {}: {cause}; start one with `tidewater run`, or say where it is with --url or TIDEWATER_URL",
            self.url
        ))
    }
}
