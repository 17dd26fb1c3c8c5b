//! Watches: every change, once, in order, from a moment on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ground::{Ground, cases, concepts};
use crate::http::{Watch, version};

cases! {
    Api concepts {
        a_watch_tells_every_change_in_order: "Efficient detection of changes",
        a_watch_goes_on_from_a_version: "Efficient detection of changes",
        a_watch_from_a_list_misses_nothing: "Efficient detection of changes",
        a_watch_without_a_version_begins_with_what_is_there: "Semantics for watch",
        a_watch_from_any_version_begins_with_what_is_there: "Semantics for watch",
        a_watch_of_a_namespace_sees_no_other: "Efficient detection of changes",
        a_watch_of_all_namespaces_sees_each: "Efficient detection of changes",
        a_watch_by_label_sees_objects_come_and_go: "Efficient detection of changes",
        a_watch_by_field_sees_one_object: "Efficient detection of changes",
        a_watch_by_declared_field_sees_objects_come: "Efficient detection of changes",
        a_deletion_shows_the_last_state: "Efficient detection of changes",
        an_object_that_is_being_deleted_is_modified_first: "Efficient detection of changes",
        a_status_write_is_a_change: "Efficient detection of changes",
        a_write_that_changes_nothing_is_no_event: "Efficient detection of changes",
        a_watch_ends_when_its_time_is_over: "Efficient detection of changes",
        a_bookmark_says_how_far_a_watch_has_come: "Watch bookmarks",
        no_bookmark_comes_unasked: "Watch bookmarks",
        initial_events_end_with_a_bookmark: "Streaming lists",
        initial_events_are_followed_by_changes: "Streaming lists",
        initial_events_need_a_matching: "Streaming lists",
        a_watch_from_a_forgotten_version_is_told_so: "410 Gone responses",
        several_watches_see_the_same: "Efficient detection of changes",
        a_watch_in_another_version_shows_that_version: "Efficient detection of changes",
        built_in_kinds_are_watched: "Efficient detection of changes",
        a_watch_of_metadata_shows_only_metadata: "Metadata-only fetches",
    }
}

async fn watch(g: &Ground, query: &str) -> Watch {
    g.http.watch(&format!("{}?watch=true&{query}", g.widgets())).await
}

/// A version before everything that the case will do.
async fn now(g: &Ground) -> String {
    version(&g.http.get(&g.widgets()).await.expect(200)).to_owned()
}

async fn resize(g: &Ground, name: &str, size: u32) -> Value {
    g.http.merge(&g.at(name), &json!({"spec": {"size": size}})).await.expect(200)
}

async fn a_watch_tells_every_change_in_order(g: Ground) {
    let mut watch = watch(&g, &format!("resourceVersion={}", now(&g).await)).await;
    let created = g.create("a", &json!({"size": 1})).await;
    for size in 2..8 {
        resize(&g, "a", size).await;
    }
    g.http.delete(&g.at("a")).await.expect(200);
    assert_eq!(watch.expect("ADDED", "a").await, created);
    for size in 2..8 {
        assert_eq!(watch.expect("MODIFIED", "a").await["spec"]["size"], size);
    }
    watch.expect("DELETED", "a").await;
}

async fn a_watch_goes_on_from_a_version(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let second = resize(&g, "a", 2).await;
    resize(&g, "a", 3).await;
    g.http.delete(&g.at("a")).await.expect(200);
    let mut watch = watch(&g, &format!("resourceVersion={}", version(&second))).await;
    assert_eq!(watch.expect("MODIFIED", "a").await["spec"]["size"], 3);
    watch.expect("DELETED", "a").await;
}

async fn a_watch_from_a_list_misses_nothing(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let list = g.http.get(&g.widgets()).await.expect(200);
    g.create("b", &json!({"size": 1})).await;
    let mut watch = watch(&g, &format!("resourceVersion={}", version(&list))).await;
    watch.expect("ADDED", "b").await;
}

async fn a_watch_without_a_version_begins_with_what_is_there(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    g.create("b", &json!({"size": 1})).await;
    let mut watch = watch(&g, "").await;
    let mut first = [watch.change().await, watch.change().await];
    first.sort_by_key(|event| event["object"]["metadata"]["name"].to_string());
    assert!(first.iter().all(|event| event["type"] == "ADDED"), "{first:?}");
    resize(&g, "a", 2).await;
    watch.expect("MODIFIED", "a").await;
}

async fn a_watch_from_any_version_begins_with_what_is_there(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let mut watch = watch(&g, "resourceVersion=0").await;
    watch.expect("ADDED", "a").await;
}

async fn a_watch_of_a_namespace_sees_no_other(g: Ground) {
    let mut watch = watch(&g, &format!("resourceVersion={}", now(&g).await)).await;
    let elsewhere = format!("/apis/{}/v1/namespaces/default/widgets", g.group);
    let name = g.own("x");
    g.http.post(&elsewhere, &g.widget(&name)).await.expect(201);
    g.create("a", &json!({"size": 1})).await;
    watch.expect("ADDED", "a").await;
    g.http.delete(&format!("{elsewhere}/{name}")).await.expect(200);
}

async fn a_watch_of_all_namespaces_sees_each(g: Ground) {
    let everywhere = format!("/apis/{}/v1/widgets", g.group);
    let from = version(&g.http.get(&everywhere).await.expect(200)).to_owned();
    let mut watch = g.http.watch(&format!("{everywhere}?watch=true&resourceVersion={from}")).await;
    g.create("a", &json!({"size": 1})).await;
    loop {
        let event = watch.change().await;
        if event["object"]["metadata"]["namespace"] == g.namespace {
            assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
            return;
        }
    }
}

async fn a_watch_by_label_sees_objects_come_and_go(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let mut watch = watch(&g, &format!("labelSelector=env%3Dprod&resourceVersion={}", now(&g).await)).await;
    let label = |value: Value| json!({"metadata": {"labels": {"env": value}}});
    g.http.merge(&g.at("a"), &label(json!("prod"))).await.expect(200);
    resize(&g, "a", 2).await;
    g.http.merge(&g.at("a"), &label(json!("test"))).await.expect(200);
    g.http.merge(&g.at("a"), &label(json!("prod"))).await.expect(200);
    watch.expect("ADDED", "a").await;
    assert_eq!(watch.expect("MODIFIED", "a").await["spec"]["size"], 2);
    watch.expect("DELETED", "a").await;
    watch.expect("ADDED", "a").await;
}

async fn a_watch_by_field_sees_one_object(g: Ground) {
    let query = format!("fieldSelector=metadata.name%3Db&resourceVersion={}", now(&g).await);
    let mut watch = watch(&g, &query).await;
    g.create("a", &json!({"size": 1})).await;
    g.create("b", &json!({"size": 1})).await;
    watch.expect("ADDED", "b").await;
}

async fn a_watch_by_declared_field_sees_objects_come(g: Ground) {
    let query = format!("fieldSelector=spec.nodeName%3Dn1&resourceVersion={}", now(&g).await);
    let mut watch = watch(&g, &query).await;
    g.create("a", &json!({"size": 1})).await;
    g.http.merge(&g.at("a"), &json!({"spec": {"nodeName": "n1"}})).await.expect(200);
    watch.expect("ADDED", "a").await;
}

async fn a_deletion_shows_the_last_state(g: Ground) {
    let created = g.create("a", &json!({"size": 7})).await;
    let mut watch = watch(&g, &format!("resourceVersion={}", version(&created))).await;
    g.http.delete(&g.at("a")).await.expect(200);
    let last = watch.expect("DELETED", "a").await;
    assert_eq!((&last["spec"]["size"], &last["metadata"]["uid"]), (&json!(7), &created["metadata"]["uid"]));
    assert_ne!(version(&last), version(&created), "it has the version of its deletion");
}

async fn an_object_that_is_being_deleted_is_modified_first(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    let created = g.http.post(&g.widgets(), &object).await.expect(201);
    let mut watch = watch(&g, &format!("resourceVersion={}", version(&created))).await;
    g.http.delete(&g.at("a")).await.expect(200);
    assert!(watch.expect("MODIFIED", "a").await["metadata"]["deletionTimestamp"].is_string());
    g.http.merge(&g.at("a"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    watch.expect("DELETED", "a").await;
}

async fn a_status_write_is_a_change(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let mut watch = watch(&g, &format!("resourceVersion={}", version(&created))).await;
    let status = format!("{}/status", g.at("a"));
    g.http.merge(&status, &json!({"status": {"phase": "Running"}})).await.expect(200);
    assert_eq!(watch.expect("MODIFIED", "a").await["status"]["phase"], "Running");
}

async fn a_write_that_changes_nothing_is_no_event(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let mut watch = watch(&g, &format!("resourceVersion={}", version(&created))).await;
    g.http.put(&g.at("a"), &created).await.expect(200);
    resize(&g, "a", 1).await;
    resize(&g, "a", 2).await;
    assert_eq!(watch.expect("MODIFIED", "a").await["spec"]["size"], 2);
}

async fn a_watch_ends_when_its_time_is_over(g: Ground) {
    let began = Instant::now();
    let mut watch = watch(&g, &format!("timeoutSeconds=1&resourceVersion={}", now(&g).await)).await;
    while let Some(event) = watch.next().await {
        assert_eq!(event["type"], "BOOKMARK", "{event}");
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

async fn a_bookmark_says_how_far_a_watch_has_come(g: Ground) {
    let from = now(&g).await;
    let query = format!("allowWatchBookmarks=true&timeoutSeconds=5&resourceVersion={from}");
    let mut watch = watch(&g, &query).await;
    let created = g.create("a", &json!({"size": 1})).await;
    let mut last = None;
    let mut bookmarks = 0;
    while let Some(event) = watch.next().await {
        let reached = version(&event["object"]).parse::<u64>().expect("a number of today's servers");
        assert!(last.is_none_or(|last| reached >= last), "versions only rise: {event}");
        last = Some(reached);
        if event["type"] == "BOOKMARK" {
            bookmarks += 1;
            assert_eq!(event["object"]["kind"], "Widget");
        } else {
            assert_eq!(event["object"]["metadata"]["uid"], created["metadata"]["uid"]);
        }
    }
    // When bookmarks come is the server's choice; both kinds of server send one before the end.
    assert!(last.is_some());
    println!("{bookmarks} bookmarks");
}

async fn no_bookmark_comes_unasked(g: Ground) {
    let mut watch = watch(&g, &format!("timeoutSeconds=2&resourceVersion={}", now(&g).await)).await;
    g.create("a", &json!({"size": 1})).await;
    let mut kinds = Vec::new();
    while let Some(event) = watch.next().await {
        kinds.push(event["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(kinds, ["ADDED"]);
}

const STREAMED: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// Reads the initial events; answers the names in them and the closing bookmark.
async fn initial(watch: &mut Watch) -> (Vec<String>, Value) {
    let mut names = Vec::new();
    loop {
        let event = watch.next().await.expect("the watch goes on");
        let metadata = &event["object"]["metadata"];
        if event["type"] == "BOOKMARK" {
            if metadata["annotations"]["k8s.io/initial-events-end"] == "true" {
                names.sort_unstable();
                return (names, event["object"].clone());
            }
            continue;
        }
        assert_eq!(event["type"], "ADDED", "{event}");
        names.push(metadata["name"].as_str().expect("a name").to_owned());
    }
}

async fn initial_events_end_with_a_bookmark(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let last = g.create("b", &json!({"size": 1})).await;
    let mut watch = watch(&g, STREAMED).await;
    let (names, bookmark) = initial(&mut watch).await;
    assert_eq!(names, ["a", "b"]);
    let reached = |object: &Value| version(object).parse::<u64>().expect("a number of today's servers");
    assert!(reached(&bookmark) >= reached(&last), "{bookmark}");
}

async fn initial_events_are_followed_by_changes(g: Ground) {
    let mut watch = watch(&g, STREAMED).await;
    assert!(initial(&mut watch).await.0.is_empty());
    g.create("a", &json!({"size": 1})).await;
    watch.expect("ADDED", "a").await;
}

async fn initial_events_need_a_matching(g: Ground) {
    let path = format!("{}?watch=true&sendInitialEvents=true", g.widgets());
    g.http.get(&path).await.refused(422, "Invalid");
    let path = format!("{}?watch=true&resourceVersionMatch=NotOlderThan&resourceVersion=0", g.widgets());
    g.http.get(&path).await.invalid("FieldValueForbidden", "resourceVersionMatch");
}

async fn a_watch_from_a_forgotten_version_is_told_so(g: Ground) {
    // The embedded server of this suite remembers few changes; a cluster began to watch the suite's kinds long after this.
    for size in 0..100 {
        if size == 0 {
            g.create("a", &json!({"size": 0})).await;
        } else {
            resize(&g, "a", size).await;
        }
    }
    let mut watch = watch(&g, "resourceVersion=1").await;
    let event = watch.next().await.expect("an event");
    let object = &event["object"];
    assert_eq!((&event["type"], &object["kind"], &object["code"]), (&json!("ERROR"), &json!("Status"), &json!(410)));
    assert_eq!(object["reason"], "Expired");
}

async fn several_watches_see_the_same(g: Ground) {
    let query = format!("resourceVersion={}", now(&g).await);
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(watch(&g, &query).await);
    }
    g.create("a", &json!({"size": 1})).await;
    resize(&g, "a", 2).await;
    for watch in &mut watches {
        watch.expect("ADDED", "a").await;
        watch.expect("MODIFIED", "a").await;
    }
}

async fn a_watch_in_another_version_shows_that_version(g: Ground) {
    let path = g.widgets().replace("/v1/", "/v1beta1/");
    let from = now(&g).await;
    let mut watch = g.http.watch(&format!("{path}?watch=true&resourceVersion={from}")).await;
    g.create("a", &json!({"size": 1})).await;
    assert_eq!(watch.expect("ADDED", "a").await["apiVersion"], format!("{}/v1beta1", g.group));
}

async fn built_in_kinds_are_watched(g: Ground) {
    let from = version(&g.http.get(&g.leases()).await.expect(200)).to_owned();
    let mut watch = g.http.watch(&format!("{}?watch=1&resourceVersion={from}", g.leases())).await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    g.http.post(&g.leases(), &lease).await.expect(201);
    let seen = watch.expect("ADDED", "l").await;
    assert_eq!((&seen["kind"], &seen["apiVersion"]), (&json!("Lease"), &json!("coordination.k8s.io/v1")));
}

async fn a_watch_of_metadata_shows_only_metadata(g: Ground) {
    let from = now(&g).await;
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    g.create("a", &json!({"size": 1})).await;
    let path = format!("{}?watch=true&timeoutSeconds=1&resourceVersion={from}", g.widgets());
    // One event, and the end: the whole body is one line.
    let answer = g.http.get_as(&path, accept).await.expect(200);
    assert_eq!((&answer["type"], &answer["object"]["kind"]), (&json!("ADDED"), &json!("PartialObjectMetadata")));
    assert_eq!((&answer["object"]["metadata"]["name"], answer["object"].get("spec")), (&json!("a"), None));
}
