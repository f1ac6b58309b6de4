//! A proxy in front of PostgreSQL that cuts a connection around a message of the client's.
#![allow(clippy::unwrap_used)] // a failure here is the test's message

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees the message.
    Before,
    /// Neither side ever hears from the other again, but the connection stays.
    Silence,
    /// The server has carried it out and answered, but the client never hears of it.
    AfterItsAnswer,
}

type Plan = Arc<Mutex<Option<(Vec<u8>, Cut)>>>;

/// The proxy; it ends with the runtime of its test.
pub struct Proxy {
    pub port: u16,
    plan: Plan,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Plan::default();
        let shared = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, shared.clone()));
            }
        });
        Self { port, plan }
    }

    /// Cuts once, around the next bytes from a client that hold `text`.
    pub fn cut(&self, text: &str, cut: Cut) {
        *self.plan.lock().unwrap() = Some((text.as_bytes().to_vec(), cut));
    }

    /// Asserts that the cut has happened.
    pub fn was_cut(&self) {
        assert!(self.plan.lock().unwrap().is_none(), "nothing was cut");
    }
}

async fn serve(client: TcpStream, server: u16, plan: Plan) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let count = read.unwrap_or(0);
                if count == 0 {
                    return;
                }
                let bytes = &asked[..count];
                let cut = plan.lock().unwrap().take_if(|(text, _)| bytes.windows(text.len()).any(|part| part == text));
                match cut {
                    Some((_, Cut::Before)) => return,
                    Some((_, Cut::Silence)) => return std::future::pending().await,
                    _ => {}
                }
                if to_server.write_all(bytes).await.is_err() {
                    return;
                }
                if cut.is_some() {
                    // The server answers when it is done; the answer goes no further.
                    let _ = from_server.read(&mut answered).await;
                    return;
                }
            }
            read = from_server.read(&mut answered) => {
                let count = read.unwrap_or(0);
                if count == 0 || to_client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
