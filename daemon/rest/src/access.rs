//! Who may call what: users and tokens of a file, each with a role.
//!
//! ```toml
//! [users.alice]                  # HTTP basic authentication
//! role = "admin"
//! password = "$argon2id$v=19$…"  # from `tidewater auth hash`
//!
//! [tokens.ci]                    # Authorization: Bearer …
//! role = "operator"
//! sha256 = "…"                   # from `tidewater auth hash --token`
//! ```
//! A viewer reads; an operator also pauses, resumes, stops, restarts, validates and sets log levels; an admin does all.
//! The file is read again when it has changed; while it has a fault, what was read before holds.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// How often the file is looked at for changes, at most.
const LOOK: Duration = Duration::from_secs(1);
/// Passwords found right that are remembered, since checking one takes tens of milliseconds by design.
const REMEMBERED: usize = 1000;

/// What somebody may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Runs what is there.
    Operator,
    /// Changes everything.
    Admin,
}

/// Why the file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it must be.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserFile {
    #[serde(default)]
    users: BTreeMap<String, User>,
    #[serde(default)]
    tokens: BTreeMap<String, Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    role: Role,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    role: Role,
    sha256: String,
}

type Hash = [u8; 32];

/// The users and tokens of a file.
pub struct Access {
    path: PathBuf,
    known: Mutex<Known>,
    /// One password is checked at a time: guessing must not take the processor from the connectors.
    checking: Semaphore,
}

struct Known {
    users: Arc<BTreeMap<String, User>>,
    tokens: HashMap<Hash, Role>,
    /// The role by the hash of name and password.
    remembered: HashMap<Hash, Role>,
    modified: Option<SystemTime>,
    looked: Instant,
}

impl Access {
    /// Reads the file of users.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        Ok(Self {
            path: path.to_owned(),
            known: Mutex::new(Known::read(path)?),
            checking: Semaphore::new(1),
        })
    }

    /// Who calls; an error says that nobody known does.
    async fn role(&self, authorization: Option<&HeaderValue>) -> Result<Role, ApiError> {
        let unknown = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message);
        let text = authorization
            .ok_or_else(|| unknown("this needs a user or a token; send the header Authorization"))?
            .to_str()
            .map_err(|_| unknown("the header Authorization is no text"))?;
        let (scheme, credentials) = text.split_once(' ').unwrap_or((text, ""));
        let credentials = credentials.trim();
        self.look_again();
        if scheme.eq_ignore_ascii_case("bearer") {
            let hash: Hash = Sha256::digest(credentials).into();
            let role = self.known.lock().tokens.get(&hash).copied();
            return role.ok_or_else(|| unknown("the token is not known"));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(unknown("the header Authorization must be Basic or Bearer"));
        }
        let decoded = STANDARD
            .decode(credentials)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let (name, password) = decoded
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .ok_or_else(|| unknown("the header Authorization is no name and password in Base64"))?;
        let wrong = || unknown("the name or the password is wrong");
        self.password(name, password).await.ok_or_else(wrong)
    }

    async fn password(&self, name: &str, password: &str) -> Option<Role> {
        let hash: Hash = Sha256::digest(format!("{name}\0{password}")).into();
        let users = {
            let known = self.known.lock();
            if let Some(role) = known.remembered.get(&hash) {
                return Some(*role);
            }
            known.users.clone()
        };
        let _turn = self.checking.acquire().await.ok()?;
        let (name, password) = (name.to_owned(), password.to_owned());
        let checked = users.clone();
        let check = move || {
            // One that is not there takes as long as one that is.
            let user = checked.get(&name).or_else(|| checked.values().next())?;
            let stored = PasswordHash::new(&user.password).ok()?;
            Argon2::default()
                .verify_password(password.as_bytes(), &stored)
                .ok()?;
            checked.get(&name).map(|user| user.role)
        };
        let role = tokio::task::spawn_blocking(check).await.ok().flatten()?;
        let mut known = self.known.lock();
        // Not if the file was read again meanwhile.
        if Arc::ptr_eq(&known.users, &users) {
            if known.remembered.len() >= REMEMBERED {
                known.remembered.clear();
            }
            known.remembered.insert(hash, role);
        }
        Some(role)
    }

    /// Reads the file again if it has changed.
    fn look_again(&self) {
        let mut known = self.known.lock();
        if known.looked.elapsed() < LOOK {
            return;
        }
        known.looked = Instant::now();
        let modified = modified(&self.path);
        if modified == known.modified {
            return;
        }
        match Known::read(&self.path) {
            Ok(read) => {
                tracing::info!(file = %self.path.display(), "users read again");
                *known = read;
            }
            Err(error) => {
                tracing::error!(%error, "the users read before stay in force");
                known.modified = modified;
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

impl Known {
    fn read(path: &Path) -> Result<Self, AccessError> {
        let modified = modified(path);
        let text = std::fs::read_to_string(path).map_err(|source| AccessError::Read {
            path: path.to_owned(),
            source,
        })?;
        let invalid = |message: String| AccessError::Invalid {
            path: path.to_owned(),
            message,
        };
        let file: UserFile = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if file.users.is_empty() && file.tokens.is_empty() {
            return Err(invalid(
                "has no users and no tokens, so nobody could call; make one with `tidewater auth hash`"
                    .to_owned(),
            ));
        }
        for (name, user) in &file.users {
            if name.contains(':') {
                return Err(invalid(format!("users.{name}: a name has no colon")));
            }
            PasswordHash::new(&user.password).map_err(|error| {
                invalid(format!(
                    "users.{name}.password is no hash ({error}); make one with `tidewater auth hash`"
                ))
            })?;
        }
        let mut tokens = HashMap::new();
        for (name, token) in &file.tokens {
            let hash = hex(&token.sha256).ok_or_else(|| {
                invalid(format!(
                    "tokens.{name}.sha256 must be 64 hexadecimal digits; make them with `tidewater auth hash --token`"
                ))
            })?;
            tokens.insert(hash, token.role);
        }
        Ok(Self {
            users: Arc::new(file.users),
            tokens,
            remembered: HashMap::new(),
            modified,
            looked: Instant::now(),
        })
    }
}

fn hex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return None;
    }
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(hash)
}

/// The hash of a password, as the file has it.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

/// The hash of a token, as the file has it.
pub fn hash_token(token: &str) -> String {
    let hash: Hash = Sha256::digest(token).into();
    let mut text = String::with_capacity(2 * hash.len());
    for byte in hash {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

/// The least role a call needs; none where anybody may call.
fn needed(method: &Method, path: &str) -> Option<Role> {
    if path == "/health/live" || path == "/health/ready" {
        return None;
    }
    if method.is_safe() {
        return Some(Role::Viewer);
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let runs = path.starts_with("/connectors/") && matches!(last, "pause" | "resume" | "stop" | "restart");
    let looks = path.starts_with("/admin/loggers/")
        || (path.starts_with("/connector-plugins/") && last == "validate");
    Some(if runs || looks {
        Role::Operator
    } else {
        Role::Admin
    })
}

/// Lets through who may call.
pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let Some(needed) = needed(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    match access.role(request.headers().get(header::AUTHORIZATION)).await {
        Ok(role) if role >= needed => next.run(request).await,
        Ok(role) => {
            let message = format!("this needs the role {needed:?}; yours is {role:?}").to_lowercase();
            ApiError::new(StatusCode::FORBIDDEN, message).into_response()
        }
        Err(error) => {
            let mut response = error.into_response();
            let ways = HeaderValue::from_static("Basic realm=\"tidewater\", Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ways);
            response
        }
    }
}
