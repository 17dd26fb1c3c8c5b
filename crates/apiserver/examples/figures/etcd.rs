//! etcd beside it: the program of the system, one member, its defaults, its data on the same filesystem.
//!
//! It is asked the way its own clients ask it, by gRPC over HTTP/2 without TLS, one kept connection for each writer; its JSON
//! gateway would cost it a second hop. A put is answered once it is in its write-ahead log and synced.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::measure::program;

/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// A running etcd, which ends with this.
pub(crate) struct Etcd {
    child: Child,
    port: u16,
}

type Connection = SendRequest<Full<Bytes>>;

impl Etcd {
    /// Starts it with its data in that folder; none when it is not installed.
    pub(crate) async fn start(folder: &Path) -> Option<Etcd> {
        let (port, peers) = (free_port(), free_port());
        let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let mut command = program(Path::new("etcd"));
        command.args(["--name", "bench", "--data-dir"]).arg(folder.join("etcd"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("bench={peers}"), "--log-level", "error"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut etcd = Etcd { child, port };
        let end = Instant::now() + START;
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if etcd.child.try_wait().ok().flatten().is_some() {
                return None;
            }
            if let Ok(mut connection) = connect(port).await
                && put(&mut connection, "ready", "1").await.is_ok()
            {
                return Some(etcd);
            }
        }
        None
    }

    /// Puts so many values over a connection of its own.
    pub(crate) async fn write(&self, prefix: String, count: usize, value: String) -> Vec<Duration> {
        write(self.port, prefix, count, value).await
    }

    /// The same in a task of its own.
    pub(crate) fn writer(&self, prefix: String, count: usize, value: String) -> JoinHandle<Vec<Duration>> {
        tokio::spawn(write(self.port, prefix, count, value))
    }

    pub(crate) fn stop(self) {}
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn write(port: u16, prefix: String, count: usize, value: String) -> Vec<Duration> {
    let mut connection = connect(port).await.expect("connects");
    let mut times = Vec::with_capacity(count);
    for index in 0..count {
        // A key as long as Kubernetes makes them.
        let key = format!("/registry/secrets/default/{prefix}-{index}");
        let start = Instant::now();
        put(&mut connection, &key, &value).await.expect("is put");
        times.push(start.elapsed());
    }
    times
}

async fn connect(port: u16) -> Result<Connection, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

/// `etcdserverpb.KV/Put`: a message of two fields, in a frame of gRPC.
async fn put(connection: &mut Connection, key: &str, value: &str) -> Result<(), String> {
    let mut message = BytesMut::new();
    field(&mut message, 1, key);
    field(&mut message, 2, value);
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("small"));
    frame.extend_from_slice(&message);
    let request = Request::post("http://127.0.0.1/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(frame.freeze()))
        .map_err(|error| error.to_string())?;
    connection.ready().await.map_err(|error| error.to_string())?;
    let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    match status {
        Some(status) if status == "0" => Ok(()),
        other => Err(format!("grpc-status {other:?}")),
    }
}

/// A field of bytes: its tag, its length in groups of seven bits, the bytes.
fn field(message: &mut BytesMut, number: u8, bytes: &str) {
    message.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.put_u8(u8::try_from(length & 0x7F).expect("seven bits") | 0x80);
        length >>= 7;
    }
    message.put_u8(u8::try_from(length).expect("seven bits"));
    message.extend_from_slice(bytes.as_bytes());
}
