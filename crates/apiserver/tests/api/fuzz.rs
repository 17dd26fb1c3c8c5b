//! Fuzzing: valid requests, mutated. Each is answered, in time, with no failure of the server; and what is said to be done is
//! done and right.
//!
//! Seeded: a run repeats itself. `APISERVER_TEST_FUZZ` is the number of requests, `APISERVER_TEST_FUZZ_SEED` another start.
//! `corpus/requests.txt` holds requests that were once answered wrongly; they are sent first.
//!
//! Invariants, after every request: a refusal, a dry run or a read changes no version; a refusal is a `Status` of its own
//! code; what a successful write answers is valid by the rules of the kind, keeps what never changes, and is what is read
//! next; a write that named another version or uid did not succeed.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use lvault_apiserver::ApiServer;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::setup::{BOXES, SECRETS, THINGS, in_memory, thing};

const CORPUS: &str = include_str!("corpus/requests.txt");

/// Choices that are the same in every run.
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("small")).expect("small")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

#[derive(Debug, Clone)]
struct Sent {
    method: String,
    target: String,
    kind: String,
    body: Vec<u8>,
}

/// Odd values, each of which some parser somewhere got wrong.
fn odd(choices: &mut Choices) -> Value {
    let values = [
        Value::Null,
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(1e300),
        json!(true),
        json!(""),
        json!(" "),
        json!("a/b"),
        json!("\u{0}"),
        json!("ä\u{1F600}"),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({"a": {"b": null}}),
        json!(["a", "a"]),
        json!("2020-01-01T00:00:00Z"),
        json!({"f:x": {}}),
    ];
    values[choices.below(values.len())].clone()
}

/// Changes one thing somewhere in a document.
fn mutate(choices: &mut Choices, value: &mut Value) {
    let deeper = !choices.one_in(4);
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            let key = &keys[choices.below(keys.len())];
            match choices.below(8) {
                0 => drop(fields.remove(key)),
                1 => drop(
                    fields
                        .insert(String::from(choices.pick(&["x", "", "a.b", "~1", "metadata", "spec"])), odd(choices)),
                ),
                _ => mutate(choices, fields.get_mut(key).expect("is there")),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = choices.below(items.len());
            match choices.below(6) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => mutate(choices, &mut items[at]),
            }
        }
        other => *other = odd(choices),
    }
}

fn object(choices: &mut Choices) -> Value {
    let mut object = thing(choices.pick(&["a", "b", "c"]));
    let parts = [
        ("/metadata", json!({"labels": {"a": "b", "c": "d"}})),
        ("/metadata", json!({"finalizers": ["example.com/x"]})),
        ("/metadata", json!({"resourceVersion": choices.below(40).to_string()})),
        ("/metadata", json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u"}]})),
        (
            "/metadata",
            json!({"managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "example.com/v1",
                                                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:size": {}}}}]}),
        ),
        ("/spec", json!({"count": 3, "mode": "ro", "code": "abc"})),
        ("/spec", json!({"list": [{"n": 1}], "free": {"x": [1, null]}, "nodeName": "n1"})),
        ("", json!({"status": {"phase": "Running"}})),
    ];
    for (at, part) in parts {
        if choices.one_in(4)
            && let Some(Value::Object(fields)) = object.pointer_mut(at)
        {
            fields.extend(part.as_object().expect("an object").clone());
        }
    }
    object
}

fn operations(choices: &mut Choices) -> Value {
    let paths = [
        "/spec/count",
        "/spec/list/0",
        "/spec/list/-",
        "/metadata/labels",
        "/metadata/name",
        "/x/y",
        "",
        "/spec",
        "/status",
        "/metadata/finalizers/0",
        "/~2",
    ];
    let count = choices.below(4);
    let each = (0..count).map(|_| {
        let op = choices.pick(&["add", "remove", "replace", "move", "copy", "test"]);
        json!({"op": op, "path": choices.pick(&paths), "from": choices.pick(&paths), "value": odd(choices)})
    });
    each.collect()
}

fn query(choices: &mut Choices) -> String {
    let names = [
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "propagationPolicy",
        "pretty",
        "timeoutSeconds",
    ];
    let values = [
        "",
        "0",
        "1",
        "-1",
        "All",
        "a=b",
        "a!=b",
        "a in (b,c)",
        "!a",
        "a in (",
        "metadata.name=a",
        "spec.nodeName=n1",
        "Exact",
        "NotOlderThan",
        "Strict",
        "Warn",
        "true",
        "perhaps",
        "me",
        "Foreground",
        "Orphan",
        "99999999999999999999",
        "%ff",
        "%",
        "&&",
        "=",
        ",,",
        "(",
        "a=b=c",
        "a>1",
    ];
    let mut text = String::from("fieldManager=fuzz");
    for _ in 0..choices.below(3) {
        let value = choices.pick(&values);
        let escaped = value.replace(' ', "+").replace('>', "%3E");
        write!(text, "&{}={escaped}", choices.pick(&names)).expect("written");
    }
    text
}

fn path(choices: &mut Choices) -> String {
    let mut path = match choices.below(10) {
        0..=4 => format!("{THINGS}/{}", choices.pick(&["a", "b", "c"])),
        5 => format!("{THINGS}/{}/status", choices.pick(&["a", "b"])),
        6 => THINGS.to_owned(),
        7 => format!("{BOXES}/a"),
        8 => format!("{SECRETS}/s"),
        _ => THINGS.replace("/v1/", "/v1beta1/") + "/a",
    };
    if choices.one_in(8) {
        let at = choices.below(path.len());
        path.insert_str(at, choices.pick(&["/", "%2f", "%00", "..", "//", "A", ";", "~"]));
    }
    path
}

/// One request: a valid one, most of the time with something changed in it.
fn request(choices: &mut Choices) -> Sent {
    let (mut method, kind, mut document) = match choices.below(9) {
        0 | 1 => ("POST", "application/json", object(choices)),
        2 | 3 => ("PUT", "application/json", object(choices)),
        4 => ("PATCH", "application/merge-patch+json", object(choices)),
        5 => ("PATCH", "application/json-patch+json", operations(choices)),
        6 => ("PATCH", "application/apply-patch+yaml", object(choices)),
        7 => ("DELETE", "application/json", json!({"preconditions": {"uid": "u"}, "propagationPolicy": "Background"})),
        _ => ("GET", "application/json", Value::Null),
    };
    for _ in 0..choices.below(3) {
        mutate(choices, &mut document);
    }
    let mut body = if method == "GET" { Vec::new() } else { document.to_string().into_bytes() };
    if choices.one_in(12) && !body.is_empty() {
        let at = choices.below(body.len());
        match choices.below(3) {
            0 => body.truncate(at),
            1 => body[at] ^= 1 << choices.below(8),
            _ => body.insert(at, b'"'),
        }
    }
    let mut target = path(choices);
    if method == "POST" && target.starts_with(&format!("{THINGS}/")) && !choices.one_in(10) {
        target = THINGS.to_owned();
    }
    if choices.one_in(30) {
        method = choices.pick(&["HEAD", "OPTIONS", "TRACE", "ODD"]);
    }
    let kind = if choices.one_in(15) {
        choices.pick(&["", "text/plain", ";", "application/yaml", "application/json; charset=utf-8"])
    } else {
        kind
    };
    Sent { method: method.to_owned(), target: format!("{target}?{}", query(choices)), kind: kind.to_owned(), body }
}

async fn exchange(server: &ApiServer, sent: &Sent) -> Option<(u16, Value)> {
    let request = Request::builder()
        .method(Method::from_bytes(sent.method.as_bytes()).ok()?)
        .uri(&sent.target)
        .header("content-type", &sent.kind)
        .body(Full::new(Bytes::from(sent.body.clone())));
    let answering = async {
        let response = server.service().oneshot(request.ok()?).await.expect("never fails");
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("never fails").to_bytes();
        Some((code, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    };
    tokio::time::timeout(Duration::from_secs(20), answering).await.expect("it does not hang")
}

async fn read(server: &ApiServer, path: &str) -> (u16, Value) {
    let sent = Sent { method: String::from("GET"), target: path.to_owned(), kind: String::new(), body: Vec::new() };
    // A mutated path need not be one that can be asked at all.
    exchange(server, &sent).await.unwrap_or((0, Value::Null))
}

async fn revision(server: &ApiServer) -> u64 {
    let (_, list) = read(server, "/api/v1/namespaces").await;
    list["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number")
}

/// Sends it, and answers what is wrong with the answer, if anything.
async fn judge(server: &ApiServer, sent: &Sent) -> Result<u16, String> {
    let item = sent.target.split('?').next().unwrap_or_default().trim_end_matches("/status").to_owned();
    let (before, (_, old)) = (revision(server).await, read(server, &item).await);
    let Some((code, answer)) = exchange(server, sent).await else {
        return Ok(0);
    };
    let after = revision(server).await;
    let wrong = |why: &str| Err(format!("{why}: {code} {answer}\nbefore: {old}"));
    // 504 says that a version was asked for that is yet to come; and a cluster, too, answers 500 to an applied field that the
    // schema does not declare.
    let undeclared =
        answer["message"].as_str().is_some_and(|text| text.starts_with("failed to create typed patch object"));
    if code >= 500 && code != 504 && !undeclared {
        return wrong("the server failed");
    }
    if code >= 400 {
        if answer["code"] != code && sent.method != "HEAD" {
            return wrong("a refusal that is no Status of its code");
        }
        return if after == before { Ok(code) } else { wrong("refused, and something changed") };
    }
    let silent = matches!(sent.method.as_str(), "GET" | "HEAD") || sent.target.contains("dryRun=All");
    if silent {
        return if after == before { Ok(code) } else { wrong("nothing was to change") };
    }
    if matches!(sent.method.as_str(), "PUT" | "PATCH")
        && let Ok(asked) = serde_json::from_slice::<Value>(&sent.body)
    {
        for field in ["resourceVersion", "uid"] {
            let (named, found) = (&asked["metadata"][field], &old["metadata"][field]);
            if named.as_str().is_some_and(|text| !text.is_empty()) && found.is_string() && named != found && code != 201
            {
                return wrong("the condition did not hold");
            }
        }
    }
    if answer["kind"] != "Thing" || sent.method == "DELETE" {
        return Ok(code);
    }
    if let Err(why) = valid(&answer, &old) {
        return wrong(&why);
    }
    let (found, stored) =
        read(server, &format!("{THINGS}/{}", answer["metadata"]["name"].as_str().unwrap_or_default())).await;
    let same = stored["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]
        && (stored["spec"] == answer["spec"])
        && stored["status"] == answer["status"];
    if found == 200 && !same {
        return wrong("what is stored is not what was answered");
    }
    if found == 404
        && answer["metadata"]["deletionTimestamp"].is_null()
        && answer["metadata"]["ownerReferences"].is_null()
    {
        return wrong("what was answered is not stored");
    }
    Ok(code)
}

/// The rules of the kind, by hand.
fn valid(object: &Value, old: &Value) -> Result<(), String> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let text_or_null = |value: &Value| value.is_null() || value.is_string();
    let checks = [
        (
            "name",
            metadata["name"].as_str().is_some_and(|name| {
                !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
            }),
        ),
        ("uid", metadata["uid"].as_str().is_some_and(|uid| uid.len() == 36)),
        ("generation", metadata["generation"].as_u64().is_some_and(|generation| generation >= 1)),
        ("labels", metadata["labels"].as_object().into_iter().flatten().all(|(_, value)| value.is_string())),
        ("size", spec["size"].is_string() || spec["size"].is_i64() || spec["size"].is_u64()),
        ("mode", matches!(spec["mode"].as_str(), Some("ro" | "rw"))),
        ("count", spec["count"].is_null() || spec["count"].as_u64().is_some_and(|count| (1..=9).contains(&count))),
        (
            "code",
            spec["code"].is_null()
                || spec["code"]
                    .as_str()
                    .is_some_and(|code| (1..=5).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase())),
        ),
        ("nodeName", text_or_null(&spec["nodeName"])),
        ("comment", text_or_null(&spec["comment"])),
        (
            "phase",
            status["phase"].is_null() || matches!(status["phase"].as_str(), Some("Pending" | "Running" | "Done")),
        ),
        (
            "pruned",
            spec.as_object().is_some_and(|fields| {
                fields.keys().all(|key| {
                    ["size", "mode", "count", "nodeName", "code", "comment", "free", "list"].contains(&key.as_str())
                })
            }),
        ),
        (
            "nodeName stays",
            old["spec"]["nodeName"].is_null()
                || old["metadata"]["uid"] != metadata["uid"]
                || old["spec"]["nodeName"] == spec["nodeName"],
        ),
        (
            "uid stays",
            old["kind"] != "Thing"
                || old["metadata"]["name"] != metadata["name"]
                || old["metadata"]["uid"] == metadata["uid"],
        ),
        (
            "birth stays",
            old["metadata"]["uid"] != metadata["uid"]
                || old["metadata"]["creationTimestamp"] == metadata["creationTimestamp"],
        ),
    ];
    // The other version of the kind has no schema: what is written through it may be anything.
    let strict = object["apiVersion"] == "example.com/v1";
    match checks.iter().find(|(_, holds)| !holds) {
        Some((what, _)) if strict => Err(format!("{what} is wrong")),
        Some(_) | None => Ok(()),
    }
}

fn corpus() -> Vec<Sent> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| {
        let parts: Vec<&str> = line.splitn(4, '\t').collect();
        let [method, target, kind, body] = parts.as_slice() else {
            panic!("four parts: {line}");
        };
        Sent {
            method: (*method).into(),
            target: (*target).into(),
            kind: (*kind).into(),
            body: body.as_bytes().to_vec(),
        }
    };
    lines.map(parse).collect()
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn mutated_requests_are_answered_and_what_is_done_is_right() {
    let server = in_memory().await;
    for sent in corpus() {
        let verdict = judge(&server, &sent).await;
        assert!(verdict.is_ok(), "{sent:?}: {}", verdict.expect_err("wrong"));
    }
    let mut choices = Choices(number("APISERVER_TEST_FUZZ_SEED", 1));
    let (mut done, mut refused, mut wrong) = (0_u64, 0_u64, Vec::new());
    for round in 0..number("APISERVER_TEST_FUZZ", 5000) {
        let sent = request(&mut choices);
        let line = format!("{}\t{}\t{}\t{}", sent.method, sent.target, sent.kind, String::from_utf8_lossy(&sent.body));
        match judge(&server, &sent).await {
            Ok(200..=299) => done += 1,
            Ok(_) => refused += 1,
            Err(why) => wrong.push(format!("request {round}, as a line of the corpus:\n{line}\n{why}")),
        }
    }
    println!("{done} done, {refused} refused");
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(done > 200 && refused > 200, "both ways were tried: {done} done, {refused} refused");
}
