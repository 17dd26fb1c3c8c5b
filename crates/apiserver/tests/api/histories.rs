//! Histories: what several clients saw, with everything going wrong between them and the server, checked against what happened.
//!
//! The watch of an undisturbed client is the truth: each key's chain of versions. Holds for every history:
//! an acknowledged write is in the chain once, directly after the version that it was based on; a refused write is not; a
//! write whose answer got lost is there at most once; what was read at a version is what was written at it; and nobody sees
//! an older version after a newer one was acknowledged to anybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DynamicObject, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use lvault_apiserver::{ApiServer, Config};
use lvault_faults::{Cut, Fault, Faults, Plan, Refusal, Seen};
use serde_json::{Value, json};
use tower::Layer as _;

use crate::setup::{Http, THINGS, bounded, client, in_memory, kinds, names, open_file, thing, thing_resource};

fn things(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &thing_resource())
}

/// A client behind faults.
fn faulty(server: &ApiServer, faults: &Faults) -> Client {
    Client::new(faults.layer(server.service()), "default")
}

fn lossy() -> Vec<Fault> {
    vec![
        Fault::LoseRequest(Seen::Error),
        Fault::LoseAnswer(Seen::Error),
        Fault::Delay(Duration::from_millis(2)),
        Fault::DelayAnswer(Duration::from_millis(2)),
        Fault::Duplicate,
        Fault::Refuse(Refusal::Conflict),
        Fault::Refuse(Refusal::TooManyRequests { retry_after: 1 }),
        Fault::Refuse(Refusal::Internal),
        Fault::FailAnswer(Refusal::Internal),
    ]
}

/// How a write ended, as far as the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Acknowledged(u64),
    Refused,
    Unknown,
}

#[derive(Debug, Clone)]
enum Action {
    Read { version: u64, value: String },
    Write { base: u64, value: String, end: End },
}

/// One step of one client: when it was asked and when it was answered, on a common clock of counts.
#[derive(Debug, Clone)]
struct Step {
    key: String,
    asked: u64,
    answered: u64,
    action: Action,
}

fn version(object: &DynamicObject) -> u64 {
    object.resource_version().expect("a version").parse().expect("a number")
}

fn value(object: &DynamicObject) -> String {
    object.annotations().get("value").cloned().unwrap_or_default()
}

/// Reads and writes by compare-and-swap, again and again; every value is written once only.
async fn work(client: Client, who: u64, clock: Arc<AtomicU64>, rounds: u64) -> Vec<Step> {
    let (api, mut steps) = (things(&client), Vec::new());
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    for round in 0..rounds {
        let key = format!("k{}", (who + round * 7) % 3);
        let asked = tick();
        let Ok(mut object) = api.get(&key).await else {
            continue;
        };
        let answered = tick();
        let (base, found) = (version(&object), value(&object));
        steps.push(Step { key: key.clone(), asked, answered, action: Action::Read { version: base, value: found } });
        let value = format!("{who}-{round}");
        object.annotations_mut().insert(String::from("value"), value.clone());
        let asked = tick();
        let written = api.replace(&key, &PostParams::default(), &object).await;
        let answered = tick();
        let end = match written {
            Ok(object) => End::Acknowledged(version(&object)),
            Err(kube::Error::Api(status)) if status.code == 429 => End::Refused,
            // A conflict may be the echo of the same request, done a moment before: of a duplicate. Not known, then.
            Err(_) => End::Unknown,
        };
        steps.push(Step { key, asked, answered, action: Action::Write { base, value, end } });
    }
    steps
}

/// A key's versions with the value that each gave it, in order.
type Chain = Vec<(u64, String)>;

/// What is wrong with a history, if anything.
fn judge(chains: &BTreeMap<String, Chain>, steps: &[Step]) -> Result<(), String> {
    for step in steps {
        let chain = chains.get(&step.key).ok_or("an unknown key")?;
        match &step.action {
            Action::Read { version, value } => {
                if !chain.contains(&(*version, value.clone())) {
                    return Err(format!("{step:?} read what was never written"));
                }
            }
            Action::Write { base, value, end } => {
                let places: Vec<usize> = (0..chain.len()).filter(|at| chain[*at].1 == *value).collect();
                match (end, places.as_slice()) {
                    (End::Unknown | End::Refused, []) => {}
                    (End::Refused, _) => return Err(format!("{step:?} was refused and done")),
                    (End::Acknowledged(_), []) => return Err(format!("{step:?} was acknowledged and lost")),
                    (End::Acknowledged(_) | End::Unknown, [at]) => {
                        if *at == 0 || chain[at - 1].0 != *base {
                            return Err(format!("{step:?} did not follow what it was based on"));
                        }
                        if matches!(end, End::Acknowledged(version) if *version != chain[*at].0) {
                            return Err(format!("{step:?} was acknowledged with another version"));
                        }
                    }
                    (_, _) => return Err(format!("{step:?} was done twice")),
                }
            }
        }
    }
    in_real_time(steps)
}

/// The version that a step proved to exist, if any.
fn proved(step: &Step) -> Option<u64> {
    match &step.action {
        Action::Read { version, .. } | Action::Write { end: End::Acknowledged(version), .. } => Some(*version),
        Action::Write { end: End::Refused | End::Unknown, .. } => None,
    }
}

/// Whatever was proved before a step was asked is not news to it.
fn in_real_time(steps: &[Step]) -> Result<(), String> {
    for earlier in steps {
        for later in steps.iter().filter(|later| later.key == earlier.key && later.asked > earlier.answered) {
            if let (Some(before), Some(after)) = (proved(earlier), proved(later))
                && after < before
            {
                return Err(format!("{later:?} is older than {earlier:?}"));
            }
        }
    }
    Ok(())
}

/// The chains that a watch tells, up to a version.
async fn chains(client: &Client, from: u64, until: u64) -> BTreeMap<String, Chain> {
    let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
    let stream = things(client).watch(&WatchParams::default(), &from.to_string()).await.expect("watches");
    let mut stream = stream.boxed();
    let mut last = from;
    while last < until {
        let event = bounded("an event", stream.try_next()).await.expect("an event").expect("not the end");
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else {
            panic!("{event:?}");
        };
        assert!(version(&object) > last, "in order");
        last = version(&object);
        chains.entry(object.name_any()).or_default().push((last, value(&object)));
    }
    chains
}

async fn history(server: &ApiServer, plan: Plan, rounds: u64) -> (BTreeMap<String, Chain>, Vec<Step>, Faults) {
    let http = Http(client(server));
    let from = http.revision().await;
    for key in ["k0", "k1", "k2"] {
        http.post(THINGS, &thing(key)).await.expect(201);
    }
    let (faults, clock) = (Faults::new(plan), Arc::new(AtomicU64::new(0)));
    let clients = (0..6).map(|who| tokio::spawn(work(faulty(server, &faults), who, Arc::clone(&clock), rounds)));
    let steps = bounded("the clients", futures::future::join_all(clients)).await;
    let steps = steps.into_iter().flat_map(|steps| steps.expect("ran")).collect();
    let until = http.revision().await;
    (chains(&http.0, from, until).await, steps, faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compare_and_swap_is_linearizable_whatever_gets_lost() {
    for seed in 0..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let server = open_file(&folder.path().join("store")).await;
        let (chains, steps, faults) = history(&server, Plan::drawn(seed, 250, lossy()), 60).await;
        assert_eq!(judge(&chains, &steps), Ok(()), "seed {seed}: {:#?}", faults.log());
        let count = |wanted: fn(&End) -> bool| {
            let ends = steps.iter().filter_map(|step| match &step.action {
                Action::Write { end, .. } => Some(end),
                Action::Read { .. } => None,
            });
            ends.filter(|end| wanted(end)).count()
        };
        let (done, unknown) = (count(|end| matches!(end, End::Acknowledged(_))), count(|end| *end == End::Unknown));
        assert!(done > 40 && unknown > 10, "the history is worth something: {done} done, {unknown} unknown");
        server.close().await;
    }
}

/// The judge itself: each way in which a history can be wrong is seen.
#[test]
fn a_history_that_is_wrong_is_called_so() {
    let chains =
        BTreeMap::from([(String::from("k"), vec![(1, String::new()), (2, String::from("a")), (5, String::from("b"))])]);
    let step = |asked, action| Step { key: String::from("k"), asked, answered: asked + 1, action };
    let write = |base, value: &str, end| Action::Write { base, value: value.to_owned(), end };
    let read = |version, value: &str| Action::Read { version, value: value.to_owned() };
    let good = [
        step(0, write(1, "a", End::Acknowledged(2))),
        step(2, read(2, "a")),
        step(4, write(2, "b", End::Unknown)),
        step(6, write(2, "c", End::Refused)),
        step(8, write(5, "d", End::Unknown)),
    ];
    assert_eq!(judge(&chains, &good), Ok(()));
    for (wrong, why) in [
        (vec![step(0, write(1, "z", End::Acknowledged(3)))], "lost"),
        (vec![step(0, write(1, "a", End::Refused))], "refused and done"),
        (vec![step(0, write(1, "b", End::Acknowledged(5)))], "did not follow"),
        (vec![step(0, write(2, "b", End::Acknowledged(4)))], "another version"),
        (vec![step(0, read(3, "a"))], "never written"),
        (vec![step(0, read(5, "b")), step(9, read(2, "a"))], "older than"),
    ] {
        let verdict = judge(&chains, &wrong).expect_err(why);
        assert!(verdict.contains(why), "{verdict}");
    }
    let twice =
        BTreeMap::from([(String::from("k"), vec![(1, String::new()), (2, String::from("a")), (3, String::from("a"))])]);
    assert!(judge(&twice, &good[..1]).expect_err("twice").contains("done twice"));
}

/// Whatever happens to lists and watches, the client's store ends as what is stored.
#[tokio::test(start_paused = true)]
async fn a_watcher_rebuilds_the_store_through_everything() {
    for seed in 0..20 {
        let mut config = Config::in_memory(kinds());
        config.watch_history = 8;
        let server = ApiServer::open(config).await.expect("opens");
        let menu = vec![
            Fault::CutWatch { after: 0, how: Cut::Clean },
            Fault::CutWatch { after: 2, how: Cut::Clean },
            Fault::CutWatch { after: 1, how: Cut::Torn },
            Fault::CutWatch { after: 3, how: Cut::Broken },
            Fault::StaleWatch(Duration::from_secs(30)),
            Fault::ExpireWatch,
            Fault::LoseRequest(Seen::Error),
            Fault::LoseAnswer(Seen::Error),
            Fault::Refuse(Refusal::Internal),
            Fault::Refuse(Refusal::TooManyRequests { retry_after: 1 }),
            Fault::Delay(Duration::from_secs(5)),
        ];
        let faults = Faults::new(Plan::drawn(seed, 700, menu));
        let watching = faulty(&server, &faults);
        let stream = watcher(things(&watching), watcher::Config::default().timeout(20));
        let mut stream = stream.boxed();
        let http = Http(client(&server));
        let writing = tokio::spawn(disturb(http.clone(), seed));
        let mut store = Mirror::default();
        while !writing.is_finished() {
            if let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
                store.see(event);
            }
        }
        writing.await.expect("wrote");
        faults.replan(Plan::nothing());
        // All late events, pauses and the watch that is open are over by then.
        let calm = tokio::time::Instant::now() + Duration::from_secs(600);
        while let Ok(Some(event)) = tokio::time::timeout_at(calm, stream.next()).await {
            store.see(event);
        }
        let list = http.get(THINGS).await.expect(200);
        let stored: Vec<&str> = names(&list);
        assert_eq!(store.objects.keys().map(String::as_str).collect::<Vec<_>>(), stored, "seed {seed}");
        for item in list["items"].as_array().expect("items") {
            let name = item["metadata"]["name"].as_str().expect("a name");
            assert_eq!(store.objects[name], item["metadata"]["resourceVersion"], "seed {seed}: {name}");
        }
        assert!(faults.log().len() > 10, "seed {seed}: {} faults", faults.log().len());
        server.close().await;
    }
}

/// A store as a client keeps it: names and versions.
#[derive(Default)]
struct Mirror {
    objects: BTreeMap<String, Value>,
    arriving: BTreeMap<String, Value>,
}

impl Mirror {
    fn see(&mut self, event: Result<watcher::Event<DynamicObject>, watcher::Error>) {
        let entry = |object: &DynamicObject| (object.name_any(), json!(object.resource_version()));
        match event {
            Err(_) => {}
            Ok(watcher::Event::Init) => self.arriving.clear(),
            Ok(watcher::Event::InitApply(object)) => self.arriving.extend([entry(&object)]),
            Ok(watcher::Event::InitDone) => self.objects = std::mem::take(&mut self.arriving),
            Ok(watcher::Event::Apply(object)) => self.objects.extend([entry(&object)]),
            Ok(watcher::Event::Delete(object)) => drop(self.objects.remove(&object.name_any())),
        }
    }
}

/// A while of creating, changing and deleting.
async fn disturb(http: Http, seed: u64) {
    for step in 0..120_u64 {
        let name = format!("t{}", (seed + step * step) % 6);
        let path = format!("{THINGS}/{name}");
        match (seed + step) % 3 {
            0 => drop(http.post(THINGS, &thing(&name)).await),
            1 => drop(http.merge(&path, &json!({"metadata": {"labels": {"step": step.to_string()}}})).await),
            _ => drop(http.delete(&path, &Value::Null).await),
        }
        tokio::time::sleep(Duration::from_secs(1 + step % 5)).await;
    }
}

/// Nobody is told of a write before it is done, and nobody loses one: a client that creates through lost answers and asks
/// again ends with each object once.
#[tokio::test(start_paused = true)]
async fn creating_until_it_is_there_makes_each_once() {
    let server = in_memory().await;
    let faults = Faults::new(Plan::drawn(3, 500, lossy()));
    let api = things(&faulty(&server, &faults));
    for index in 0..100 {
        let object: DynamicObject = serde_json::from_value(thing(&format!("o{index:03}"))).expect("an object");
        loop {
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
    let list = Http(client(&server)).get(THINGS).await.expect(200);
    assert_eq!(names(&list), (0..100).map(|index| format!("o{index:03}")).collect::<Vec<_>>());
    assert!(faults.log().len() > 50);
}
