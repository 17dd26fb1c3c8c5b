//! SIGKILL under write load, again and again over one file: whatever was acknowledged is there.
//!
//! `APISERVER_TEST_KILLS` says how often in the usual run; `make kills` does it a thousand times.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::programs::{Ended, this_test};
use crate::setup::{BOXES, Http, bounded, box_of, client, open_file};

const WRITER: &str = "kills::writer";
const STORE_VARIABLE: &str = "APISERVER_TEST_STORE";
const PREFIX_VARIABLE: &str = "APISERVER_TEST_PREFIX";
const KILLS_VARIABLE: &str = "APISERVER_TEST_KILLS";

/// Not a test: the process that is killed. Eight tasks create, change and delete, and each says what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test that kills it"]
async fn writer() {
    let file = std::env::var_os(STORE_VARIABLE).expect("the store");
    let prefix = std::env::var(PREFIX_VARIABLE).expect("the prefix");
    let server = open_file(Path::new(&file)).await;
    let http = Http(client(&server));
    println!("open");
    let writers = (0..8).map(|writer| {
        let (http, prefix) = (http.clone(), prefix.clone());
        tokio::spawn(async move {
            for index in 0..5000 {
                let name = format!("{prefix}-{writer}-{index}");
                let path = format!("{BOXES}/{name}");
                http.post(BOXES, &box_of(&name)).await.expect(201);
                println!("made {name}");
                if index % 3 == 0 {
                    http.merge(&path, &json!({"spec": {"x": 2}})).await.expect(200);
                    println!("changed {name}");
                }
                if deletes(index) {
                    http.delete(&path, &Value::Null).await.expect(200);
                    println!("deleted {name}");
                }
            }
        })
    });
    futures::future::join_all(writers).await;
}

/// Which objects the writer deletes again.
fn deletes(index: u32) -> bool {
    index % 5 == 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_loses_nothing_it_acknowledged() {
    let kills = std::env::var(KILLS_VARIABLE).map_or(40, |text| text.parse().expect("a number"));
    kill_again_and_again(kills).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes: make kills"]
async fn a_thousand_killed_writers_lose_nothing_they_acknowledged() {
    kill_again_and_again(1000).await;
}

async fn kill_again_and_again(kills: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("store.redb");
    let (mut total, mut while_opening) = (0, 0);
    let mut known = Known::default();
    for round in 0..kills {
        let (store, prefix) = (file.clone(), format!("r{round}"));
        let when = When::of(round);
        let seen = tokio::task::spawn_blocking(move || write_until_killed(&store, &prefix, when));
        let seen = bounded("the writer", seen).await.expect("ran");
        while_opening += u64::from(!seen.iter().any(|line| line.ends_with("open")));
        total += known.learn(&seen);
        check(&file, &mut known, round).await;
    }
    println!("{kills} kills, {while_opening} of them before it was open; {total} acknowledged writes, none lost");
    assert!(total > kills * 5, "the writer wrote: {total}");
}

/// What was acknowledged.
#[derive(Default)]
struct Known {
    made: BTreeSet<String>,
    changed: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

impl Known {
    /// Takes in what the writer said; answers how many writes that were.
    fn learn(&mut self, lines: &[String]) -> u64 {
        let mut count = 0;
        for line in lines {
            let Some((what, name)) = line.split_once(' ') else {
                continue;
            };
            let set = match what {
                "made" => &mut self.made,
                "changed" => &mut self.changed,
                "deleted" => &mut self.deleted,
                _other => continue,
            };
            set.insert(name.to_owned());
            count += 1;
        }
        count
    }
}

/// Opens the file and compares; now and then it removes everything, so that the file stays small.
async fn check(file: &Path, known: &mut Known, round: u64) {
    let server = open_file(file).await;
    let http = Http(client(&server));
    let list = http.get(BOXES).await.expect(200);
    let items = list["items"].as_array().expect("items");
    let found: BTreeMap<&str, &Value> =
        items.iter().map(|item| (item["metadata"]["name"].as_str().expect("a name"), item)).collect();
    let ends = |name: &String| deletes(name.rsplit('-').next().and_then(|index| index.parse().ok()).expect("an index"));
    // Whether a deletion that was not acknowledged happened is open.
    let lost: Vec<&String> =
        known.made.iter().filter(|name| !ends(name) && !found.contains_key(name.as_str())).collect();
    assert!(lost.is_empty(), "round {round}: lost {lost:?}");
    let back: Vec<&String> = known.deleted.iter().filter(|name| found.contains_key(name.as_str())).collect();
    assert!(back.is_empty(), "round {round}: deleted and back {back:?}");
    let old = |name: &&String| found.get(name.as_str()).is_some_and(|item| item["spec"]["x"] != 2);
    let old: Vec<&String> = known.changed.iter().filter(old).collect();
    assert!(old.is_empty(), "round {round}: changed and not so {old:?}");
    let versions: BTreeSet<String> = items.iter().map(|item| item["metadata"]["resourceVersion"].to_string()).collect();
    assert_eq!(versions.len(), items.len(), "round {round}: no resource version is given out twice");
    if items.len() > 1000 {
        http.delete(BOXES, &Value::Null).await.expect(200);
        let names = std::mem::take(&mut known.made);
        known.changed.clear();
        known.deleted.extend(names);
    }
    server.close().await;
}

/// When a writer is killed.
#[derive(Debug, Clone, Copy)]
enum When {
    /// This long after its start, wherever it is.
    AfterStart(Duration),
    /// This long after its first write was answered.
    AfterFirst(Duration),
}

impl When {
    fn of(round: u64) -> When {
        let spread = Duration::from_millis(round * 37 % 101);
        if round % 4 == 3 { When::AfterStart(spread * 2) } else { When::AfterFirst(spread) }
    }
}

/// Runs the writer and kills it. Answers the whole lines that it said.
fn write_until_killed(file: &PathBuf, prefix: &str, when: When) -> Vec<String> {
    let mut command = this_test(WRITER);
    command.env(STORE_VARIABLE, file).env(PREFIX_VARIABLE, prefix);
    let start = Instant::now();
    let mut child = Ended(command.spawn().expect("the writer starts"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("its output")).lines();
    let mut seen = Vec::new();
    match when {
        When::AfterStart(wait) => std::thread::sleep(wait.saturating_sub(start.elapsed())),
        When::AfterFirst(wait) => {
            let mut first = None;
            for line in lines.by_ref() {
                let line = line.expect("a line");
                if line.starts_with("made ") {
                    first.get_or_insert_with(Instant::now);
                }
                seen.push(line);
                if first.is_some_and(|first| first.elapsed() >= wait) {
                    break;
                }
            }
        }
    }
    child.0.kill().expect("killed");
    // What it had said before it died counts as well; a last line that was cut off does not.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let whole = rest.len().saturating_sub(1);
    seen.extend(rest.into_iter().take(whole));
    seen
}
