//! Figures of the embedded API on this machine: `cargo run --release -p lvault-apiserver --example figures`.
//!
//! Holds: it measures and prints, and asserts nothing.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for its author's terminal")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use lvault_apiserver::{ApiServer, ApiService, Config};
use tower::ServiceExt as _;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn send(service: &ApiService, method: Method, path: &str, body: String) -> Bytes {
    let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body))).expect("a request");
    let response = service.clone().oneshot(request).await.expect("never fails");
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.expect("never fails").to_bytes()
}

fn secret(name: &str) -> String {
    format!("{{\"metadata\":{{\"name\":\"{name}\"}},\"stringData\":{{\"a\":\"{}\"}}}}", "x".repeat(800))
}

async fn write(service: ApiService, prefix: String, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for index in 0..count {
        let start = Instant::now();
        send(&service, Method::POST, SECRETS, secret(&format!("{prefix}-{index}"))).await;
        times.push(start.elapsed());
    }
    times
}

fn report(what: &str, mut times: Vec<Duration>, wall: Duration) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let rate = times.len() as f64 / wall.as_secs_f64();
    println!("{what}: {rate:.0}/s, p50 {:?}, p99 {:?} ({} operations)", at(50), at(99), times.len());
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().replace("VmRSS:", "").trim().to_owned()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder =
        tempfile::tempdir_in(std::env::var_os("FIGURES_IN").unwrap_or_else(|| "/tmp".into())).expect("a folder");
    let file = folder.path().join("store");
    let server = ApiServer::open(Config::in_file(&file, Vec::new())).await.expect("opens");
    println!("empty: {} resident", resident());
    let start = Instant::now();
    report("durable writes, one writer", write(server.service(), String::from("one"), 1000).await, start.elapsed());
    let start = Instant::now();
    let writers = (0..16).map(|writer| tokio::spawn(write(server.service(), format!("w{writer}"), 9000 / 16)));
    let times = futures::future::join_all(writers).await.into_iter().flat_map(|times| times.expect("ran")).collect();
    report("durable writes, 16 writers", times, start.elapsed());
    println!("with 10,000 objects: {} resident", resident());
    let start = Instant::now();
    let mut times = Vec::new();
    for index in 0..5000 {
        let asked = Instant::now();
        send(&server.service(), Method::GET, &format!("{SECRETS}/one-{}", index % 1000), String::new()).await;
        times.push(asked.elapsed());
    }
    report("reads", times, start.elapsed());
    let start = Instant::now();
    let bytes = send(&server.service(), Method::GET, SECRETS, String::new()).await.len();
    println!("list of 10,000: {:?}, {bytes} bytes", start.elapsed());
    server.close().await;
    let start = Instant::now();
    let server = ApiServer::open(Config::in_file(&file, Vec::new())).await.expect("opens");
    println!(
        "open with 10,000: {:?}, file {} bytes",
        start.elapsed(),
        std::fs::metadata(&file).map_or(0, |found| found.len())
    );
    server.close().await;
}
