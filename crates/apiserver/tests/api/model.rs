//! Random operations beside a simple model of one kind: every answer and every object is as the model says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::setup::{Http, THINGS, client, in_memory};

/// What a client may do to an object; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Doing {
    Create { count: u8, held: bool },
    Replace { count: u8, fresh: bool },
    Spec { count: u8 },
    Status { phase: u8 },
    StatusThroughMain { phase: u8 },
    Label { value: u8 },
    Hold,
    Release,
    Delete { with: Condition },
    Get,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    None,
    Right,
    Wrong,
}

/// What the model knows of an object.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    count: Option<u8>,
    phase: Option<u8>,
    label: Option<u8>,
    held: bool,
    deleting: bool,
    generation: u64,
    version: String,
    old_version: Option<String>,
    uid: String,
}

const PHASES: [&str; 2] = ["Pending", "Running"];

fn doing() -> impl Strategy<Value = Doing> {
    // A count of 10 is one that the schema refuses.
    prop_oneof![
        3 => (1..=10_u8, any::<bool>()).prop_map(|(count, held)| Doing::Create { count, held }),
        2 => (1..=10_u8, any::<bool>()).prop_map(|(count, fresh)| Doing::Replace { count, fresh }),
        2 => (1..=10_u8).prop_map(|count| Doing::Spec { count }),
        2 => (0..3_u8).prop_map(|phase| Doing::Status { phase }),
        1 => (0..3_u8).prop_map(|phase| Doing::StatusThroughMain { phase }),
        1 => (0..2_u8).prop_map(|value| Doing::Label { value }),
        1 => Just(Doing::Hold),
        2 => Just(Doing::Release),
        2 => prop_oneof![Just(Condition::None), Just(Condition::Right), Just(Condition::Wrong)]
            .prop_map(|with| Doing::Delete { with }),
        1 => Just(Doing::Get),
    ]
}

fn phase(number: u8) -> &'static str {
    PHASES.get(usize::from(number)).copied().unwrap_or("Odd")
}

/// The model: what is there, and the last version that was given out.
#[derive(Default)]
struct Model {
    objects: BTreeMap<String, Known>,
    last: u64,
}

impl Model {
    /// Does it to the server and to the model, and compares.
    async fn step(&mut self, http: &Http, name: &str, doing: &Doing) {
        let path = format!("{THINGS}/{name}");
        let known = self.objects.get(name).cloned();
        let (code, body) = send(http, &path, name, doing, known.as_ref()).await;
        let (expected, after) = expect(known.as_ref(), doing);
        assert_eq!(code, expected, "{doing:?} on {known:?}: {body}");
        match after {
            After::Same => {
                if let (Some(known), 200) = (&known, code) {
                    self.compare(known, &body, false);
                }
            }
            After::Changed(mut known) => {
                known.uid = body["metadata"]["uid"].as_str().expect("a uid").to_owned();
                let version = body["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
                known.old_version = (!known.version.is_empty()).then(|| known.version.clone());
                known.version = version;
                self.compare(&known, &body, true);
                self.objects.insert(name.to_owned(), known);
            }
            After::Gone => {
                self.objects.remove(name);
                self.last = http.revision().await;
            }
        }
        let found = http.get(&path).await;
        assert_eq!(found.code == 200, self.objects.contains_key(name), "{doing:?}: {}", found.body);
        if let Some(known) = self.objects.get(name).cloned() {
            self.compare(&known, &found.body, false);
        }
    }

    fn compare(&mut self, known: &Known, found: &Value, is_news: bool) {
        let metadata = &found["metadata"];
        assert_eq!(found["spec"].get("count").and_then(Value::as_u64), known.count.map(u64::from), "{found}");
        assert_eq!(found["status"]["phase"].as_str(), known.phase.map(phase), "{found}");
        let label = known.label.map(|label| label.to_string());
        assert_eq!(metadata["labels"]["l"].as_str(), label.as_deref(), "{found}");
        assert_eq!(metadata["finalizers"].is_array(), known.held, "{found}");
        assert_eq!(metadata["deletionTimestamp"].is_string(), known.deleting, "{found}");
        assert_eq!(metadata["generation"], known.generation, "{found}");
        assert_eq!(
            (&metadata["resourceVersion"], &metadata["uid"]),
            (&json!(known.version), &json!(known.uid)),
            "{found}"
        );
        let version: u64 = known.version.parse().expect("a number");
        if is_news {
            assert!(version > self.last, "versions only rise");
            self.last = version;
        }
    }
}

async fn send(http: &Http, path: &str, name: &str, doing: &Doing, known: Option<&Known>) -> (u16, Value) {
    let object = |count: u8| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"size": 1, "count": count}});
    let status = format!("{path}/status");
    let answer = match doing {
        Doing::Create { count, held } => {
            let mut object = object(*count);
            if *held {
                object["metadata"]["finalizers"] = json!(["example.com/x"]);
            }
            http.post(THINGS, &object).await
        }
        Doing::Replace { count, fresh } => {
            let mut object = object(*count);
            if let Some(known) = known {
                let old = known.old_version.as_ref().filter(|_| !fresh).unwrap_or(&known.version);
                object["metadata"]["resourceVersion"] = json!(old);
                object["metadata"]["finalizers"] = if known.held { json!(["example.com/x"]) } else { json!([]) };
                object["metadata"]["labels"] = known.label.map_or(json!({}), |label| json!({"l": label.to_string()}));
            }
            http.put(path, &object).await
        }
        Doing::Spec { count } => http.merge(path, &json!({"spec": {"count": count}})).await,
        Doing::Status { phase: number } => http.merge(&status, &json!({"status": {"phase": phase(*number)}})).await,
        Doing::StatusThroughMain { phase: number } => {
            http.merge(path, &json!({"status": {"phase": phase(*number)}})).await
        }
        Doing::Label { value } => http.merge(path, &json!({"metadata": {"labels": {"l": value.to_string()}}})).await,
        Doing::Hold => http.merge(path, &json!({"metadata": {"finalizers": ["example.com/x"]}})).await,
        Doing::Release => http.merge(path, &json!({"metadata": {"finalizers": null}})).await,
        Doing::Delete { with } => {
            let uid = match (with, known) {
                (Condition::None, _) | (_, None) => Value::Null,
                (Condition::Right, Some(known)) => json!(known.uid),
                (Condition::Wrong, Some(_)) => json!("another"),
            };
            http.delete(path, &json!({"preconditions": {"uid": uid}})).await
        }
        Doing::Get => http.get(path).await,
    };
    (answer.code, answer.body)
}

enum After {
    Same,
    Changed(Known),
    Gone,
}

/// What the model says of it.
fn expect(known: Option<&Known>, doing: &Doing) -> (u16, After) {
    let Some(known) = known else {
        return match doing {
            Doing::Create { count: 10, .. } => (422, After::Same),
            Doing::Create { count, held } => (201, After::Changed(new(*count, *held))),
            _absent => (404, After::Same),
        };
    };
    let changed = |change: &dyn Fn(&mut Known)| {
        let mut after = known.clone();
        change(&mut after);
        if after == *known { (200, After::Same) } else { (200, After::Changed(after)) }
    };
    match doing {
        Doing::Create { count: 10, .. } => (422, After::Same),
        Doing::Create { .. } => (409, After::Same),
        Doing::Replace { fresh: false, .. } if known.old_version.is_some() => (409, After::Same),
        Doing::Replace { count: 10, .. } | Doing::Spec { count: 10 } => (422, After::Same),
        Doing::Replace { count, .. } | Doing::Spec { count } => changed(&|after| {
            after.generation += u64::from(after.count != Some(*count));
            after.count = Some(*count);
        }),
        Doing::Status { phase: 2 } => (422, After::Same),
        Doing::Status { phase } => changed(&|after| after.phase = Some(*phase)),
        Doing::StatusThroughMain { .. } | Doing::Get => (200, After::Same),
        Doing::Label { value } => changed(&|after| after.label = Some(*value)),
        Doing::Hold if known.deleting && !known.held => (422, After::Same),
        Doing::Hold => changed(&|after| after.held = true),
        Doing::Release if known.deleting => (200, After::Gone),
        Doing::Release => changed(&|after| after.held = false),
        Doing::Delete { with: Condition::Wrong } => (409, After::Same),
        Doing::Delete { .. } if known.held => changed(&|after| {
            after.generation += u64::from(!after.deleting);
            after.deleting = true;
        }),
        Doing::Delete { .. } => (200, After::Gone),
    }
}

fn new(count: u8, held: bool) -> Known {
    Known {
        count: Some(count),
        phase: None,
        label: None,
        held,
        deleting: false,
        generation: 1,
        version: String::new(),
        old_version: None,
        uid: String::new(),
    }
}

#[test]
fn every_answer_is_what_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let name = prop_oneof![Just("a"), Just("b")];
    proptest!(config, |(steps in proptest::collection::vec((name, doing()), 1..60))| {
        runtime.block_on(async {
            let server = in_memory().await;
            let http = Http(client(&server));
            let mut model = Model::default();
            for (name, doing) in &steps {
                model.step(&http, name, doing).await;
            }
        });
    });
}
