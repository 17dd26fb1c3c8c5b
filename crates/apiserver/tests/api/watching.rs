//! Watches: every change, in order, each once; what can no longer be told is said so.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use lvault_apiserver::{ApiServer, Config};
use serde_json::{Value, json};

use crate::setup::{BOXES, Http, THINGS, bounded, box_of, client, in_memory, kinds, over_both, thing, thing_resource};

fn things(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &thing_resource())
}

fn from_json(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object")
}

/// What an event is and of which object, with its version.
fn told(event: &WatchEvent<DynamicObject>) -> (&'static str, String, String) {
    let of = |object: &DynamicObject| (object.name_any(), object.resource_version().expect("a version"));
    let (kind, (name, version)) = match event {
        WatchEvent::Added(object) => ("ADDED", of(object)),
        WatchEvent::Modified(object) => ("MODIFIED", of(object)),
        WatchEvent::Deleted(object) => ("DELETED", of(object)),
        WatchEvent::Bookmark(mark) => ("BOOKMARK", (String::new(), mark.metadata.resource_version.clone())),
        WatchEvent::Error(status) => ("ERROR", (status.reason.clone(), status.code.to_string())),
    };
    (kind, name, version)
}

async fn next(
    stream: &mut (impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Unpin),
) -> (&'static str, String) {
    let event = bounded("the next event", stream.try_next()).await.expect("an event").expect("not the end");
    let (kind, name, _) = told(&event);
    (kind, name)
}

fn event(kind: &'static str, name: &str) -> (&'static str, String) {
    (kind, String::from(name))
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_version() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("before")).await.expect(201);
        let version = http.revision().await.to_string();
        http.post(THINGS, &thing("a")).await.expect(201);
        let mut stream = things(&http.0).watch(&WatchParams::default(), &version).await.expect("watches").boxed();
        assert_eq!(next(&mut stream).await, event("ADDED", "a"));
        http.post(BOXES, &box_of("of another kind")).await.refused(422, "Invalid");
        http.post(BOXES, &box_of("other")).await.expect(201);
        http.merge(&format!("{THINGS}/a"), &json!({"spec": {"count": 1}})).await.expect(200);
        http.merge(&format!("{THINGS}/a"), &json!({"spec": {"count": 1}})).await.expect(200);
        http.merge(&format!("{THINGS}/a/status"), &json!({"status": {"phase": "Done"}})).await.expect(200);
        http.delete(&format!("{THINGS}/a"), &Value::Null).await.expect(200);
        assert_eq!(next(&mut stream).await, event("MODIFIED", "a"));
        assert_eq!(next(&mut stream).await, event("MODIFIED", "a"));
        assert_eq!(next(&mut stream).await, event("DELETED", "a"));

        let mut everything = things(&http.0).watch(&WatchParams::default(), "0").await.expect("watches").boxed();
        assert_eq!(next(&mut everything).await, event("ADDED", "before"));
    })
    .await;
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_selection() {
    over_both(|http: Http| async move {
        let version = http.revision().await.to_string();
        let selected = WatchParams::default().labels("app=x").fields("spec.nodeName=n");
        let mut stream = things(&http.0).watch(&selected, &version).await.expect("watches").boxed();
        let label = |app: &str| json!({"metadata": {"labels": {"app": app}}});
        http.post(THINGS, &thing("a")).await.expect(201);
        let a = format!("{THINGS}/a");
        http.merge(&a, &json!({"spec": {"nodeName": "n"}})).await.expect(200);
        http.merge(&a, &label("x")).await.expect(200);
        http.merge(&a, &json!({"spec": {"count": 2}})).await.expect(200);
        let left = http.merge(&a, &label("y")).await.expect(200);
        http.merge(&a, &json!({"spec": {"count": 3}})).await.expect(200);
        http.merge(&a, &label("x")).await.expect(200);
        http.delete(&a, &Value::Null).await.expect(200);
        let mut seen = Vec::new();
        while seen.len() < 5 {
            seen.push(told(&bounded("an event", stream.try_next()).await.expect("an event").expect("not the end")));
        }
        let kinds: Vec<&str> = seen.iter().map(|(kind, _, _)| *kind).collect();
        assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
        assert_eq!(Some(seen[2].2.as_str()), left["metadata"]["resourceVersion"].as_str(), "the version of the change");
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_forgotten_is_an_error_in_the_stream_and_one_to_come_is_refused() {
    let mut config = Config::in_memory(kinds());
    config.watch_history = 3;
    let server = ApiServer::open(config).await.expect("opens");
    let http = Http(client(&server));
    let version = http.revision().await.to_string();
    for index in 0..6 {
        http.post(THINGS, &thing(&format!("t{index}"))).await.expect(201);
    }
    let mut stream = things(&http.0).watch(&WatchParams::default(), &version).await.expect("HTTP 200").boxed();
    let event = bounded("the error", stream.try_next()).await.expect("an event").expect("not the end");
    assert_eq!(told(&event), ("ERROR", String::from("Expired"), String::from("410")));
    assert!(stream.try_next().await.expect("no failure").is_none(), "the stream ends after it");
    let future = format!("{THINGS}?watch=1&resourceVersion=9999");
    bounded("the refusal", http.get(&future)).await.refused(504, "Timeout");
    http.get(&format!("{THINGS}?watch=1&sendInitialEvents=true")).await.refused(422, "Invalid");
}

/// kube's watcher goes through an expired version by listing again.
#[tokio::test]
async fn the_watcher_recovers_from_a_forgotten_version() {
    let mut config = Config::in_memory(kinds());
    config.watch_history = 4;
    let server = ApiServer::open(config).await.expect("opens");
    let http = Http(client(&server));
    http.post(THINGS, &thing("a")).await.expect(201);
    for strategy in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = watcher::watcher(things(&http.0), strategy).boxed();
        let mut store: BTreeMap<String, Value> = BTreeMap::new();
        let mut restarts = 0;
        let mut written = 0;
        while restarts < 2 || written < 2 {
            match bounded("the watcher", stream.next()).await.expect("never ends") {
                Ok(Event::Init) => {
                    restarts += 1;
                    store.clear();
                }
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    store.insert(object.name_any(), object.data["spec"]["count"].clone());
                }
                Ok(Event::Delete(object)) => drop(store.remove(&object.name_any())),
                Ok(Event::InitDone) => {
                    written += 1;
                    // The watch is not read meanwhile: it falls behind further than the history reaches.
                    for count in 1..9 {
                        http.merge(&format!("{THINGS}/a"), &json!({"spec": {"count": count}})).await.expect(200);
                    }
                }
                Err(watcher::Error::WatchError(status)) => assert_eq!(status.code, 410),
                Err(other) => panic!("{other}"),
            }
        }
        let end = http.get(&format!("{THINGS}/a")).await.expect(200);
        let after = bounded("what follows", async {
            while store.get("a") != Some(&end["spec"]["count"]) {
                if let Some(Ok(Event::InitApply(object) | Event::Apply(object))) = stream.next().await {
                    store.insert(object.name_any(), object.data["spec"]["count"].clone());
                }
            }
        });
        after.await;
    }
}

/// A watch goes on where it was cut, without a gap.
#[tokio::test]
async fn a_watch_resumes_where_it_ended() {
    over_both(|http: Http| async move {
        let mut version = http.revision().await.to_string();
        let mut seen = Vec::new();
        for round in 0..5 {
            for part in 0..3 {
                http.post(THINGS, &thing(&format!("t{round}{part}"))).await.expect(201);
            }
            let stream = things(&http.0).watch(&WatchParams::default(), &version).await.expect("watches");
            let events: Vec<_> = bounded("events", stream.take(3).try_collect()).await.expect("events");
            for event in &events {
                let (kind, name, at) = told(event);
                assert_eq!(kind, "ADDED");
                seen.push(name);
                version = at;
            }
        }
        let expected: Vec<String> =
            (0..5).flat_map(|round| (0..3).map(move |part| format!("t{round}{part}"))).collect();
        assert_eq!(seen, expected);
    })
    .await;
}

/// Bookmarks come when nothing else does, and at the end. Time is paused: it jumps as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_says_how_far_it_is() {
    let server = in_memory().await;
    let http = Http(client(&server));
    let version = http.revision().await.to_string();
    let start = tokio::time::Instant::now();
    let stream = things(&http.0).watch(&WatchParams::default().timeout(290), &version).await.expect("watches");
    http.post(BOXES, &box_of("a")).await.expect(201);
    let reached = http.revision().await.to_string();
    let events: Vec<_> = stream.try_collect().await.expect("events");
    let told: Vec<_> = events.iter().map(told).collect();
    assert_eq!(told, vec![("BOOKMARK", String::new(), reached); 5], "one a minute, and one at the end");
    assert_eq!(start.elapsed().as_secs(), 290);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        let parameters = WatchParams::default().initial_events();
        let mut stream = things(&http.0).watch(&parameters, "0").await.expect("watches").boxed();
        assert_eq!(next(&mut stream).await, event("ADDED", "a"));
        let last = bounded("the bookmark", stream.try_next()).await.expect("an event").expect("not the end");
        let WatchEvent::Bookmark(mark) = &last else {
            panic!("{last:?} is no bookmark");
        };
        assert_eq!(mark.metadata.annotations.get("k8s.io/initial-events-end").map(String::as_str), Some("true"));
    })
    .await;
}

#[tokio::test]
async fn closing_the_server_ends_its_watches() {
    let server = in_memory().await;
    let http = Http(client(&server));
    let stream = things(&http.0).watch(&WatchParams::default(), "0").await.expect("watches");
    server.close().await;
    let rest: Vec<_> = bounded("the end", stream.try_collect()).await.expect("ends well");
    assert!(rest.is_empty());
    http.post(THINGS, &thing("late")).await.refused(503, "ServiceUnavailable");
}

/// A small generator of choices that is the same in every run.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A list plus its watch always rebuilds what is stored; versions only rise; and increments under compare-and-swap are
/// never lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_rebuilds_the_store_under_concurrent_writers() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = crate::setup::open_file(&folder.path().join("store")).await;
    let http = Http(client(&server));
    let version = http.revision().await.to_string();
    let mut stream = things(&http.0).watch(&WatchParams::default(), &version).await.expect("watches").boxed();
    things(&http.0).create(&PostParams::default(), &from_json(thing("counter"))).await.expect("created");
    let writers = (0..6_u64).map(|seed| tokio::spawn(write_at_random(http.0.clone(), seed)));
    let added: u64 =
        bounded("the writers", futures::future::join_all(writers)).await.into_iter().map(|one| one.expect("ran")).sum();
    let list = things(&http.0).list(&ListParams::default()).await.expect("a list");
    let end: u64 = list.metadata.resource_version.clone().expect("a version").parse().expect("a number");
    let expected: BTreeMap<String, Value> =
        list.items.iter().map(|object| (object.name_any(), serde_json::to_value(object).expect("JSON"))).collect();
    assert_eq!(expected["counter"]["metadata"]["annotations"]["n"], added.to_string());

    let mut rebuilt: BTreeMap<String, Value> = BTreeMap::new();
    let mut last = 0;
    while last < end {
        let event = bounded("an event", stream.try_next()).await.expect("an event").expect("not the end");
        let (_, _, version) = told(&event);
        let version: u64 = version.parse().expect("a number");
        assert!(version > last, "{version} after {last}");
        last = version;
        match event {
            WatchEvent::Added(object) => {
                let before = rebuilt.insert(object.name_any(), serde_json::to_value(&object).expect("JSON"));
                assert!(before.is_none(), "added twice");
            }
            WatchEvent::Modified(object) => {
                let before = rebuilt.insert(object.name_any(), serde_json::to_value(&object).expect("JSON"));
                assert!(before.is_some(), "changed before it was added");
            }
            WatchEvent::Deleted(object) => assert!(rebuilt.remove(&object.name_any()).is_some()),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => panic!("{status:?}"),
        }
    }
    assert_eq!(rebuilt, expected);
    server.close().await;
}

/// Random writes on a few names, and increments of one counter. Answers how often the counter was raised.
async fn write_at_random(client: Client, seed: u64) -> u64 {
    let (api, mut choices, mut added) = (things(&client), Choices(seed), 0);
    for _ in 0..60 {
        let name = format!("t{}", choices.below(5));
        let count = choices.below(9) + 1;
        match choices.below(5) {
            0 => drop(api.create(&PostParams::default(), &from_json(thing(&name))).await),
            1 => drop(api.delete(&name, &Default::default()).await),
            2 => {
                let patch = json!({"spec": {"count": count}});
                drop(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await);
            }
            _ => {
                let mut counter = api.get("counter").await.expect("is there");
                let n = counter.annotations().get("n").map_or(0, |text| text.parse::<u64>().expect("a number"));
                counter.annotations_mut().insert(String::from("n"), (n + 1).to_string());
                match api.replace("counter", &PostParams::default(), &counter).await {
                    Ok(_) => added += 1,
                    Err(kube::Error::Api(status)) => assert_eq!(status.code, 409, "{status:?}"),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    added
}
