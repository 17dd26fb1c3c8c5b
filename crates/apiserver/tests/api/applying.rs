//! Server-side apply: what it makes of objects, what stands against it, and what is no apply at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use lvault_apiserver::{ApiServer, Config};
use serde_json::{Value, json};

use crate::setup::{BOXES, Http, SECRETS, THINGS, client, kinds, over_both, thing};

const A: &str = "/apis/example.com/v1/things/a";
const A_STATUS: &str = "/apis/example.com/v1/things/a/status";

fn with(spec: Value) -> Value {
    let mut object = thing("a");
    object["spec"] = spec;
    object
}

#[tokio::test]
async fn an_object_is_made_changed_and_left_alone() {
    over_both(|http: Http| async move {
        let made = http.apply(A, "me", &with(json!({"size": 1, "count": 2, "tags": ["x", "y"]}))).await.expect(201);
        assert_eq!((&made["spec"]["mode"], &made["metadata"]["generation"]), (&json!("rw"), &json!(1)));
        let before = http.revision().await;
        let same = http.apply(A, "me", &with(json!({"size": 1, "count": 2, "tags": ["x", "y"]}))).await.expect(200);
        assert_eq!(same, made);
        assert_eq!(http.revision().await, before, "what changes nothing writes nothing");
        let less = http.apply(A, "me", &with(json!({"size": 1, "tags": ["y", "z"]}))).await.expect(200);
        assert_eq!(
            less["spec"],
            json!({"size": 1, "mode": "rw", "tags": ["y", "z"]}),
            "what is not applied any more goes"
        );
        assert_eq!(less["metadata"]["generation"], 2);
        assert_eq!(less["metadata"]["uid"], made["metadata"]["uid"]);
        http.apply(A, "me", &with(json!({}))).await.refused(422, "Invalid");
        assert_eq!(http.get(A).await.expect(200), less);
    })
    .await;
}

#[tokio::test]
async fn time_alone_is_no_change() {
    let (seconds, mut config) = (AtomicI64::new(1_700_000_000), Config::in_memory(kinds()));
    config.clock =
        Arc::new(move || jiff::Timestamp::from_second(seconds.fetch_add(1, Ordering::Relaxed)).expect("a time"));
    let server = ApiServer::open(config).await.expect("opens");
    let http = Http(client(&server));
    let texts = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {name: "x"}});
    let s = format!("{SECRETS}/s");
    for name in ["one", "two"] {
        http.apply(&s, name, &texts(name)).await.expect(if name == "one" { 201 } else { 200 });
    }
    let before = http.get(&s).await.expect(200);
    // What is written into one field and kept in another looks like a change each time.
    let again = http.apply(&s, "one", &texts("one")).await.expect(200);
    assert_eq!(again, before);
}

#[tokio::test]
async fn what_others_own_stands_against_an_apply() {
    over_both(|http: Http| async move {
        http.apply(A, "one", &with(json!({"size": 1, "count": 2, "ports": [{"name": "p", "number": 1}]})))
            .await
            .expect(201);
        let shared = http.apply(A, "two", &with(json!({"size": 1}))).await.expect(200);
        let owners = shared["metadata"]["managedFields"].as_array().expect("a list");
        assert!(owners.iter().all(|entry| !entry["fieldsV1"]["f:spec"]["f:size"].is_null()), "equal values are shared");
        let before = http.get(A).await.expect(200);
        let refused = http.apply(A, "two", &with(json!({"size": 5}))).await.refused(409, "Conflict");
        assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.size");
        assert_eq!(
            refused["details"]["causes"],
            json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.size"}])
        );
        http.merge(&format!("{A}?fieldManager=editor"), &json!({"spec": {"count": 3}})).await.expect(200);
        let asked = with(json!({"size": 5, "count": 4, "ports": [{"name": "p", "number": 2}]}));
        let refused = http.apply(A, "two", &asked).await.refused(409, "Conflict");
        assert_eq!(
            refused["message"],
            "Apply failed with 3 conflicts: conflicts with \"editor\" using example.com/v1:\n- .spec.count\n\
             conflicts with \"one\":\n- .spec.size\n- .spec.ports[name=\"p\"].number"
        );
        http.apply(&format!("{A}?dryRun=All&force=true"), "two", &asked).await.expect(200);
        let still = http.get(A).await.expect(200);
        assert_eq!(still["spec"]["size"], before["spec"]["size"], "a dry run does nothing, nor does a conflict");
        let forced = http.apply(&format!("{A}?force=true"), "two", &asked).await.expect(200);
        assert_eq!(forced["spec"]["size"], 5);
        http.apply(A, "two", &asked).await.expect(200);
        // Who lost a field applies what it has now, and may let go of it without harm.
        http.apply(A, "one", &with(json!({"size": 5}))).await.expect(200);
        let after = http.get(A).await.expect(200);
        assert_eq!(after["spec"], json!({"size": 5, "count": 4, "mode": "rw", "ports": [{"name": "p", "number": 2}]}));
    })
    .await;
}

#[tokio::test]
async fn parts_are_owned_as_the_schema_says() {
    over_both(|http: Http| async move {
        let one = json!({"size": 1, "whole": {"a": "1"}, "list": [{"n": 1}], "free": {"a": {"x": 1}},
                         "ports": [{"name": "p"}], "tags": ["s"]});
        http.apply(A, "one", &with(one)).await.expect(201);
        let two = json!({"size": 1, "free": {"a": {"y": 1}}, "ports": [{"name": "p", "number": 2}, {"name": "q"}],
                         "tags": ["t"]});
        let both = http.apply(A, "two", &with(two)).await.expect(200);
        assert_eq!(
            both["spec"],
            json!({"size": 1, "mode": "rw", "whole": {"a": "1"}, "list": [{"n": 1}], "free": {"a": {"x": 1, "y": 1}},
                   "ports": [{"name": "p", "number": 2}, {"name": "q"}], "tags": ["s", "t"]})
        );
        for spec in [json!({"size": 1, "whole": {"b": "1"}}), json!({"size": 1, "list": [{"n": 2}]})] {
            http.apply(A, "two", &with(spec)).await.refused(409, "Conflict");
        }
        let rest = http.apply(A, "one", &with(json!({"size": 1}))).await.expect(200);
        assert_eq!(
            rest["spec"],
            json!({"size": 1, "mode": "rw", "free": {"a": {"y": 1}}, "ports": [{"name": "p", "number": 2}, {"name": "q"}],
                   "tags": ["t"]})
        );
        let meta = |finalizer: &str, uid: &str, label: &str| {
            let mut object = with(json!({"size": 1}));
            object["metadata"]["finalizers"] = json!([finalizer]);
            object["metadata"]["labels"] = json!({label: "x"});
            object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v9", "kind": "Any", "name": "o", "uid": uid}]);
            object
        };
        http.apply(A, "one", &meta("x.y/a", "u1", "k")).await.expect(200);
        let both = http.apply(A, "two", &meta("x.y/b", "u2", "l")).await.expect(200);
        assert_eq!(both["metadata"]["finalizers"], json!(["x.y/a", "x.y/b"]));
        assert_eq!(both["metadata"]["labels"], json!({"k": "x", "l": "x"}));
        assert_eq!(both["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(2));
        let rest = http.apply(A, "one", &with(json!({"size": 1}))).await.expect(200);
        assert_eq!(rest["metadata"]["finalizers"], json!(["x.y/b"]));
        assert_eq!(rest["metadata"]["ownerReferences"][0]["uid"], "u2");
    })
    .await;
}

#[tokio::test]
async fn a_status_is_applied_through_its_own_path() {
    over_both(|http: Http| async move {
        let status = |phase: &str| {
            let mut object = with(json!({"size": 7}));
            object["status"] = json!({"phase": phase});
            object
        };
        http.apply(A_STATUS, "agent", &status("Pending")).await.refused(404, "NotFound");
        let made = http.apply(A, "me", &status("Pending")).await.expect(201);
        assert_eq!(made.get("status"), None);
        assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec": {"f:size": {}}}));
        let pending = http.apply(A_STATUS, "agent", &status("Pending")).await.expect(200);
        assert_eq!((&pending["status"]["phase"], &pending["metadata"]["generation"]), (&json!("Pending"), &json!(1)));
        let refused = http.apply(A_STATUS, "other", &status("Running")).await.refused(409, "Conflict");
        let said = "Apply failed with 1 conflict: conflict with \"agent\" with subresource \"status\": .status.phase";
        assert_eq!(refused["message"], said);
        http.apply(A, "other", &status("Running")).await.expect(200);
        let done = http.apply(A_STATUS, "agent", &status("Done")).await.expect(200);
        assert_eq!((&done["status"]["phase"], &done["spec"]["size"]), (&json!("Done"), &json!(7)));
        let refused = http.apply(A_STATUS, "agent", &status("Running")).await.refused(422, "Invalid");
        assert!(refused["message"].as_str().expect("a message").contains("a terminal phase never changes"));
    })
    .await;
}

#[tokio::test]
async fn preconditions_hold_for_applies_too() {
    over_both(|http: Http| async move {
        let mut strange = with(json!({"size": 1}));
        strange["metadata"]["uid"] = json!("u");
        let refused = http.apply(A, "me", &strange).await.refused(409, "Conflict");
        assert!(refused["message"].as_str().expect("a message").contains("no existing object was found"));
        let mut versioned = with(json!({"size": 1}));
        versioned["metadata"]["resourceVersion"] = json!("1");
        let made = http.apply(A, "me", &versioned).await.expect(201);
        versioned["spec"]["size"] = json!(2);
        http.apply(A, "me", &versioned).await.refused(409, "Conflict");
        http.apply(&format!("{A}?force=true"), "me", &versioned).await.refused(409, "Conflict");
        versioned["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        let changed = http.apply(A, "me", &versioned).await.expect(200);
        assert_eq!(changed["spec"]["size"], 2);
        let owned = &changed["metadata"]["managedFields"][0]["fieldsV1"];
        assert_eq!(owned, &json!({"f:spec": {"f:size": {}}}), "nobody owns what the server sets");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_apply_is_refused() {
    over_both(|http: Http| async move {
        let yaml = "application/apply-patch+yaml";
        let required =
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        let refused = http.patch(A, yaml, &with(json!({"size": 1}))).await.refused(422, "Invalid");
        assert_eq!(refused["message"], required);
        http.merge(&format!("{A}?force=true"), &json!({})).await.refused(422, "Invalid");
        http.apply(&format!("{A}?force=perhaps"), "me", &with(json!({"size": 1}))).await.refused(400, "BadRequest");
        http.apply(THINGS, "me", &with(json!({"size": 1}))).await.refused(405, "MethodNotAllowed");
        let mut other = with(json!({"size": 1}));
        other["metadata"]["name"] = json!("b");
        http.apply(A, "me", &other).await.refused(400, "BadRequest");
        other["kind"] = json!("Box");
        let refused = http.apply(A, "me", &other).await.refused(400, "BadRequest");
        assert_eq!(refused["message"], "invalid object type: example.com/v1, Kind=Box");
        let mut managed = with(json!({"size": 1}));
        managed["metadata"]["managedFields"] = json!([]);
        let refused = http.apply(A, "me", &managed).await.refused(400, "BadRequest");
        assert_eq!(refused["message"], "metadata.managedFields must be nil");
        for body in ["", "[]", "a: b: c", "\t", "null"] {
            let path = format!("{A}?fieldManager=me");
            let headers = [("content-type", yaml)];
            http.send(http::Method::PATCH, &path, &headers, body.into()).await.refused(400, "BadRequest");
        }
        let unfit = [
            (json!({"size": 1, "odd": 1}), ".spec.odd: field not declared in schema"),
            (json!({"size": 1, "count": "x"}), ".spec.count: expected numeric (int or float), got string"),
            (json!({"size": 1, "tags": ["x", "x"]}), ".spec.tags: duplicate entries for key [=\"x\"]"),
            (
                json!({"size": 1, "ports": [{"name": "p"}, {"name": "p"}]}),
                ".spec.ports: duplicate entries for key [name=\"p\"]",
            ),
        ];
        for (spec, expected) in unfit {
            // On a cluster too this is an error of the server without a reason, whatever fieldValidation says.
            let answer = http.apply(&format!("{A}?fieldValidation=Ignore"), "me", &with(spec)).await.expect(500);
            let said = format!("failed to create typed patch object (/a; example.com/v1, Kind=Thing): {expected}");
            assert_eq!((&answer["message"], answer.get("reason")), (&json!(said), None));
        }
        http.apply(A, "me", &with(json!({"size": 1, "count": 77}))).await.refused(422, "Invalid");
        let box_of =
            json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "b", "namespace": "other"}});
        http.apply(&format!("{BOXES}/b"), "me", &box_of).await.refused(400, "BadRequest");
        let missing = "/apis/example.com/v1/namespaces/none/boxes/b";
        let box_of = json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": "b"}});
        http.apply(missing, "me", &box_of).await.refused(404, "NotFound");
        http.get(A).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_are_applied() {
    over_both(|http: Http| async move {
        let secret =
            |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data});
        let s = format!("{SECRETS}/s");
        let made = http.apply(&s, "one", &secret(json!({"a": "YQ==", "b": "Yg=="}))).await.expect(201);
        assert_eq!(made["type"], "Opaque");
        http.apply(&s, "two", &secret(json!({"c": "Yw=="}))).await.expect(200);
        http.apply(&s, "two", &secret(json!({"a": "Yg=="}))).await.refused(409, "Conflict");
        let rest = http.apply(&s, "one", &secret(json!({"b": "Yg=="}))).await.expect(200);
        assert_eq!(rest["data"], json!({"b": "Yg==", "c": "Yw=="}));
        let texts = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"d": "d"}});
        let written = http.apply(&s, "three", &texts).await.expect(200);
        assert_eq!(written["data"]["d"], "ZA==");
        let before = http.revision().await;
        http.apply(&s, "three", &texts).await.expect(200);
        assert_eq!(http.revision().await, before);

        let leases: Api<Lease> = Api::namespaced(http.0.clone(), "default");
        let lease = |holder: &str| Lease {
            metadata: ObjectMeta { name: Some(String::from("l")), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { holder_identity: Some(String::from(holder)), ..LeaseSpec::default() }),
        };
        let apply = |manager: &str, holder: &str, force: bool| {
            let (leases, lease) = (leases.clone(), lease(holder));
            let params = PatchParams { force, ..PatchParams::apply(manager) };
            async move { leases.patch("l", &params, &Patch::Apply(&lease)).await }
        };
        apply("one", "x", false).await.expect("made");
        match apply("two", "y", false).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
                assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.holderIdentity");
            }
            other => panic!("{other:?}"),
        }
        let taken = apply("two", "y", true).await.expect("forced");
        let managers: Vec<Option<String>> =
            taken.metadata.managed_fields.into_iter().flatten().map(|entry| entry.manager).collect();
        assert_eq!(managers, [Some(String::from("two"))], "who owns nothing any more is no longer named");
    })
    .await;
}

#[tokio::test]
async fn versions_of_one_kind_share_their_owners() {
    over_both(|http: Http| async move {
        const BETA: &str = "/apis/example.com/v1beta1/things/a";
        let beta = |spec: Value| {
            let mut object = with(spec);
            object["apiVersion"] = json!("example.com/v1beta1");
            object
        };
        http.apply(A, "one", &with(json!({"size": 1, "count": 2}))).await.expect(201);
        http.apply(BETA, "two", &beta(json!({"count": 3}))).await.refused(409, "Conflict");
        let less = http.apply(BETA, "one", &beta(json!({"size": 1}))).await.expect(200);
        assert_eq!(less["spec"], json!({"size": 1, "mode": "rw"}));
        let entries = less["metadata"]["managedFields"].as_array().expect("a list").clone();
        assert_eq!(entries.len(), 1, "an applier is the same in every version");
        assert_eq!(entries[0]["apiVersion"], "example.com/v1beta1");

        // The two groups of events name their fields differently.
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "x",
                           "involvedObject": {"kind": "Thing", "name": "a", "namespace": "default"}});
        http.apply("/api/v1/namespaces/default/events/e", "one", &event).await.expect(201);
        let other = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "y"});
        let path = "/apis/events.k8s.io/v1/namespaces/default/events/e";
        let refused = http.apply(path, "two", &other).await.refused(409, "Conflict");
        assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"one\": .message");
        let forced = http.apply(&format!("{path}?force=true"), "two", &other).await.expect(200);
        assert_eq!(forced["note"], "y");
    })
    .await;
}
