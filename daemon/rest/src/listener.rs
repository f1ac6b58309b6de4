//! Where the API is served: plain on loopback, with TLS and users elsewhere.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::access::{Access, AccessError, guard};

/// How long calls may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(2);

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `https`: with TLS.
    pub tls: bool,
    /// A name or number.
    pub host: String,
    /// 0 for any that is free.
    pub port: u16,
}

/// How the API is served.
#[derive(Clone, Debug, Default)]
pub struct ListenerConfig {
    /// Where.
    pub addresses: Vec<Address>,
    /// The certificate chain, PEM, for `https`.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// The file of users and tokens.
    pub users: Option<PathBuf>,
    /// Serve others than this machine without users.
    pub allow_anonymous: bool,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The users cannot be used.
    #[error("rest.users.file: {0}")]
    Access(#[from] AccessError),
    /// A setting is missing or wrong.
    #[error("{0}")]
    Config(String),
    /// An address cannot be taken.
    #[error("cannot listen on {address}: {source}; choose another one with --listen or listeners")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A bound address.
pub struct Listener {
    sockets: Vec<(TcpListener, SocketAddr, Option<RustlsConfig>)>,
    access: Option<Arc<Access>>,
}

/// The API, being served.
pub struct Serving {
    handles: Vec<Handle<SocketAddr>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl FromStr for Address {
    type Err = String;

    /// `http://host:port`, `https://host:port`, or `host:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no address; it must be http://host:port or https://host:port");
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(fault()),
            None => (false, text),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(fault)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            tls,
            host: if host.is_empty() { "0.0.0.0" } else { host }.to_owned(),
            port: port.parse().map_err(|_| fault())?,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

impl Listener {
    /// Takes the addresses; nothing is served yet.
    pub fn bind(config: &ListenerConfig) -> Result<Self, ListenError> {
        let access = config
            .users
            .as_deref()
            .map(Access::read)
            .transpose()?
            .map(Arc::new);
        let mut sockets = Vec::new();
        for address in &config.addresses {
            let bind = |source| ListenError::Bind {
                address: address.to_string(),
                source,
            };
            let socket = TcpListener::bind((address.host.as_str(), address.port)).map_err(bind)?;
            socket.set_nonblocking(true).map_err(bind)?;
            let local = socket.local_addr().map_err(bind)?;
            if !is_loopback(local.ip()) && access.is_none() && !config.allow_anonymous {
                return Err(ListenError::Config(format!(
                    "{address} can be reached from other machines, and anybody there could change everything; \
                     set rest.users.file, or rest.allow.anonymous=true where that is meant"
                )));
            }
            let tls = address.tls.then(|| tls(config)).transpose()?;
            sockets.push((socket, local, tls));
        }
        Ok(Self { sockets, access })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<String> {
        let shown = |(_, local, tls): &(TcpListener, SocketAddr, Option<RustlsConfig>)| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{local}")
        };
        self.sockets.iter().map(shown).collect()
    }

    /// Serves `app` from now on.
    pub fn serve(self, app: Router) -> std::io::Result<Serving> {
        let app = match self.access {
            Some(access) => app.layer(middleware::from_fn_with_state(access, guard)),
            None => app,
        };
        let mut serving = Serving {
            handles: Vec::new(),
            tasks: Vec::new(),
        };
        for (socket, local, tls) in self.sockets {
            let handle = Handle::new();
            let service = app.clone().into_make_service();
            serving.handles.push(handle.clone());
            serving.tasks.push(if let Some(tls) = tls {
                let server = axum_server::from_tcp_rustls(socket, tls)?.handle(handle);
                tokio::spawn(async move { ended(local, server.serve(service).await) })
            } else {
                let server = axum_server::from_tcp(socket)?.handle(handle);
                tokio::spawn(async move { ended(local, server.serve(service).await) })
            });
        }
        Ok(serving)
    }
}

fn ended(local: SocketAddr, outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(address = %local, %error, "the REST API is not served any more; restart the daemon");
    }
}

impl Serving {
    /// Takes no more calls, and gives those under way a moment.
    pub async fn stop(self) {
        for handle in &self.handles {
            handle.graceful_shutdown(Some(GRACE));
        }
        for task in self.tasks {
            // It ended by a panic of the server: there is nothing left to stop.
            let _ = task.await;
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|mapped| mapped.is_loopback())
        }
    }
}

fn tls(config: &ListenerConfig) -> Result<RustlsConfig, ListenError> {
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
        return Err(ListenError::Config(
            "an https listener needs rest.tls.certificate and rest.tls.key, two PEM files".to_owned(),
        ));
    };
    let fault = |name: &str, path: &PathBuf, error: &dyn std::fmt::Display| {
        ListenError::Config(format!("{name}: {}: {error}", path.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| fault("rest.tls.certificate", certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault("rest.tls.key", key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| fault("rest.tls.certificate", certificate, &error))?;
    Ok(RustlsConfig::from_config(Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses() {
        let shown = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(shown("http://127.0.0.1:8083"), Ok("http://127.0.0.1:8083".into()));
        assert_eq!(shown("https://[::1]:8443/"), Ok("https://[::1]:8443".into()));
        assert_eq!(shown("localhost:0"), Ok("http://localhost:0".into()));
        assert_eq!(shown("http://:8083"), Ok("http://0.0.0.0:8083".into()));
        for text in ["", "localhost", "ftp://a:1", "http://a:port", "http://a:70000"] {
            assert!(
                shown(text).is_err_and(|fault| fault.contains("http://host:port")),
                "{text}"
            );
        }
    }
}
