//! A server under somebody else's clock and chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use lvault_apiserver::{ApiServer, Config, Identifiers};
use serde_json::{Value, json};

use crate::setup::{Http, THINGS, client, kinds, names, thing};

const START: i64 = 1_700_000_000;

fn clocked(seed: u64) -> (Config, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(START));
    let read = Arc::clone(&time);
    let mut config = Config::in_memory(kinds());
    config.clock = Arc::new(move || Timestamp::from_second(read.load(Ordering::Relaxed)).expect("a time"));
    config.identifiers = Identifiers::Seeded(seed);
    (config, time)
}

async fn history(seed: u64) -> Vec<Value> {
    let (config, time) = clocked(seed);
    let server = ApiServer::open(config).await.expect("opens");
    let http = Http(client(&server));
    let mut answers = Vec::new();
    for index in 0..5 {
        time.fetch_add(7, Ordering::Relaxed);
        answers.push(http.post(THINGS, &thing(&format!("t{index}"))).await.expect(201));
        let generated = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"generateName": "g"}, "spec": {"size": 1}});
        answers.push(http.post(THINGS, &generated).await.expect(201));
    }
    answers.push(http.get(THINGS).await.expect(200));
    answers
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let first = history(7).await;
    assert_eq!(first, history(7).await);
    assert_ne!(first, history(8).await);
    assert_eq!(first[0]["metadata"]["creationTimestamp"], "2023-11-14T22:13:27Z");
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_for_a_while_and_then_removed() {
    let (mut config, time) = clocked(1);
    config.event_lifetime = Duration::from_secs(3600);
    let server = ApiServer::open(config).await.expect("opens");
    let http = Http(client(&server));
    let events = "/api/v1/namespaces/default/events";
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"kind": "Thing", "name": "a"}, "reason": "R"});
    http.post(events, &event("old")).await.expect(201);
    time.fetch_add(1800, Ordering::Relaxed);
    http.post(events, &event("middle")).await.expect(201);
    time.fetch_add(1801, Ordering::Relaxed);
    http.post(events, &event("new")).await.expect(201);
    assert_eq!(names(&http.get(events).await.expect(200)), ["middle", "new"]);
}
