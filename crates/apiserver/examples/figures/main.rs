//! Figures of the embedded API on this machine, and of etcd beside it: `make bench BENCH=api`.
//!
//! `FIGURES_IN` says in which folder, and so on which filesystem. With `etcd` in the search path, its figures are taken in the
//! same run, in turns with ours, on the same filesystem.
//!
//! Holds: it measures and prints, and judges nothing; every write is answered only when it is on disk, here and in etcd.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for its author's terminal")]

mod etcd;
mod measure;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use lvault_apiserver::{ApiBody, ApiServer, ApiService, Config};
use tower::ServiceExt as _;

use etcd::Etcd;
use measure::{program, report, resident};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const OBJECTS: usize = 10_000;
const WRITERS: usize = 16;
const ALONE: usize = 1000;
const WATCHERS: usize = 100;
const CHANGES: usize = 1000;
/// How often ours and etcd's writes are measured, in turns.
const TURNS: usize = 3;

async fn ask(service: &ApiService, method: Method, path: &str, body: String) -> ApiBody {
    let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body))).expect("a request");
    let response = service.clone().oneshot(request).await.expect("never fails");
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body()
}

async fn send(service: &ApiService, method: Method, path: &str, body: String) -> Bytes {
    ask(service, method, path, body).await.collect().await.expect("never fails").to_bytes()
}

fn filling() -> String {
    "x".repeat(800)
}

fn secret(name: &str) -> String {
    format!("{{\"metadata\":{{\"name\":\"{name}\"}},\"stringData\":{{\"a\":\"{}\"}}}}", filling())
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

/// Several tasks at once; their times together, and the time of all.
async fn together(tasks: impl Iterator<Item = tokio::task::JoinHandle<Vec<Duration>>>) -> (Vec<Duration>, Duration) {
    let start = Instant::now();
    let times = futures::future::join_all(tasks).await.into_iter().flat_map(|times| times.expect("ran")).collect();
    (times, start.elapsed())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, file] = arguments.as_slice()
        && word == "--open"
    {
        return open(Path::new(file)).await;
    }
    let base = std::env::var_os("FIGURES_IN").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(base).expect("a folder");
    let file = folder.path().join("store");
    println!("| what | rate | p50 | p99 | operations |\n|---|---:|---:|---:|---:|");
    writes(folder.path(), &file).await;
    let server = ApiServer::open(Config::in_file(&file, Vec::new())).await.expect("opens");
    fill(&server).await;
    reads(&server).await;
    println!("\n| what, with {OBJECTS} objects of 800 bytes and more | figure |\n|---|---:|");
    lists(&server).await;
    watches(&server).await;
    server.close().await;
    println!("| the file | {} MiB |", std::fs::metadata(&file).map_or(0, |found| found.len() / (1024 * 1024)));
    let itself = std::env::current_exe().expect("the path of this program");
    let opened = program(&itself).arg("--open").arg(&file).status().expect("runs");
    assert!(opened.success());
}

/// A process of its own, so that nothing of the other figures is in its memory.
async fn open(file: &Path) {
    println!("| memory of a process before it opens the file | {} |", resident());
    let start = Instant::now();
    let server = ApiServer::open(Config::in_file(file, Vec::new())).await.expect("opens");
    println!("| open | {:.0?} |", start.elapsed());
    println!("| memory of a process that has opened it | {} |", resident());
    send(&server.service(), Method::GET, SECRETS, String::new()).await;
    println!("| memory after a list of all | {} |", resident());
    server.close().await;
}

/// Durable writes, ours and etcd's in turns: whoever meets a slow moment of the disk, it is not always the same.
async fn writes(folder: &Path, file: &Path) {
    let server = ApiServer::open(Config::in_file(file, Vec::new())).await.expect("opens");
    let etcd = Etcd::start(folder).await;
    for turn in 0..TURNS {
        let start = Instant::now();
        let times = write(server.service(), format!("one-{turn}"), ALONE).await;
        report("durable writes, one writer, in process", times, start.elapsed());
        if let Some(etcd) = &etcd {
            let start = Instant::now();
            let times = etcd.write(format!("one-{turn}"), ALONE, filling()).await;
            report("etcd: put, one connection", times, start.elapsed());
        }
        let each = (OBJECTS - 1000) / WRITERS / TURNS;
        let tasks = (0..WRITERS).map(|writer| tokio::spawn(write(server.service(), format!("w{turn}-{writer}"), each)));
        let (times, wall) = together(tasks).await;
        report("durable writes, 16 writers, in process", times, wall);
        if let Some(etcd) = &etcd {
            let tasks = (0..WRITERS).map(|writer| etcd.writer(format!("w{turn}-{writer}"), each, filling()));
            let (times, wall) = together(tasks).await;
            report("etcd: put, 16 connections", times, wall);
        }
    }
    match etcd {
        Some(etcd) => etcd.stop(),
        None => println!("| etcd is not installed: not measured | | | | |"),
    }
    server.close().await;
}

/// Makes it as many objects as the figures speak of.
async fn fill(server: &ApiServer) {
    let list = send(&server.service(), Method::GET, SECRETS, String::new()).await;
    let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
    let found = list["items"].as_array().expect("items").len();
    let missing = OBJECTS.saturating_sub(found);
    let tasks = (0..WRITERS).map(|writer| {
        let count = missing / WRITERS + usize::from(writer < missing % WRITERS);
        tokio::spawn(write(server.service(), format!("more-{writer}"), count))
    });
    together(tasks).await;
    for surplus in OBJECTS..found {
        let name = list["items"][surplus]["metadata"]["name"].as_str().expect("a name");
        send(&server.service(), Method::DELETE, &format!("{SECRETS}/{name}"), String::new()).await;
    }
}

async fn read(service: ApiService, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for index in 0..count {
        let start = Instant::now();
        send(&service, Method::GET, &format!("{SECRETS}/one-0-{}", index % ALONE), String::new()).await;
        times.push(start.elapsed());
    }
    times
}

async fn reads(server: &ApiServer) {
    let start = Instant::now();
    report("reads, one reader, in process", read(server.service(), 20_000).await, start.elapsed());
    let tasks = (0..WRITERS).map(|_| tokio::spawn(read(server.service(), 2000)));
    let (times, wall) = together(tasks).await;
    report("reads, 16 readers, in process", times, wall);
}

async fn lists(server: &ApiServer) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..5 {
        let start = Instant::now();
        bytes = send(&server.service(), Method::GET, SECRETS, String::new()).await.len();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!(
        "| list of all, {} MiB, median of 5 (longest {:.0?}) | {:.0?} |",
        bytes / (1024 * 1024),
        times[4],
        times[2]
    );
    let start = Instant::now();
    let path = format!("{SECRETS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let mut watch = Reader::new(ask(&server.service(), Method::GET, &path, String::new()).await);
    watch.events(OBJECTS).await;
    println!("| watch start, until all of them were told | {:.0?} |", start.elapsed());
}

/// Reads the events of a watch.
struct Reader(ApiBody);

impl Reader {
    fn new(body: ApiBody) -> Reader {
        Reader(body)
    }

    async fn events(&mut self, count: usize) {
        let mut seen = 0;
        while seen < count {
            let frame = self.0.frame().await.expect("the watch goes on").expect("never fails");
            let bytes = frame.into_data().unwrap_or_default();
            seen += bytes.iter().filter(|byte| **byte == b'\n').count();
        }
    }
}

async fn watches(server: &ApiServer) {
    let list = send(&server.service(), Method::GET, &format!("{SECRETS}?limit=1"), String::new()).await;
    let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{SECRETS}?watch=true&resourceVersion={version}");
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        let mut watch = Reader::new(ask(&server.service(), Method::GET, &path, String::new()).await);
        watching.push(tokio::spawn(async move { watch.events(CHANGES).await }));
    }
    let start = Instant::now();
    let tasks = (0..WRITERS).map(|writer| {
        let count = CHANGES / WRITERS + usize::from(writer < CHANGES % WRITERS);
        tokio::spawn(write(server.service(), format!("seen-{writer}"), count))
    });
    together(tasks).await;
    let written = start.elapsed();
    for one in futures::future::join_all(watching).await {
        one.expect("saw everything");
    }
    println!("| {CHANGES} changes by 16 writers with {WATCHERS} watchers: written after | {written:.0?} |");
    println!("| the same: all watchers have seen all of them after | {:.0?} |", start.elapsed());
}
