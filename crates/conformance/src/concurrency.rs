//! Optimistic concurrency: conditions on versions and identities, generations, writes that change nothing, dry runs.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, concepts, conventions, custom, leases, secrets};
use crate::http::version;

cases! {
    Api conventions {
        a_put_of_an_older_version_conflicts: "Concurrency Control and Consistency",
        a_put_of_a_custom_object_names_its_version: "Concurrency Control and Consistency",
        a_patch_that_names_an_older_version_conflicts: "Concurrency Control and Consistency",
        of_several_writers_of_one_version_one_wins: "Concurrency Control and Consistency",
        a_version_differs_after_every_change: "Concurrency Control and Consistency",
        a_put_to_nothing_is_not_found: "Verbs on Resources",
        a_write_that_changes_nothing_is_no_change: "Idempotency",
    }
    Api secrets {
        a_put_of_a_secret_needs_no_version: "Create a Secret",
    }
    Api leases {
        a_put_of_a_lease_creates_it: "Custom workload",
    }
    Api concepts {
        a_deletion_may_name_the_version: "Resource deletion",
        a_deletion_may_name_the_uid: "Resource deletion",
        a_dry_run_creates_nothing: "Dry-run",
        a_dry_run_is_validated: "Dry-run",
        a_dry_run_changes_nothing: "Dry-run",
        a_dry_run_deletes_nothing: "Dry-run",
        an_unknown_dry_run_is_refused: "Dry-run",
    }
    Api custom {
        the_generation_counts_changes_of_the_spec: "Status subresource",
        without_a_status_subresource_the_generation_counts_all_but_metadata: "Status subresource",
    }
}

async fn a_put_of_an_older_version_conflicts(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    let mut mine = first.clone();
    mine["spec"]["size"] = json!(2);
    let second = g.http.put(&g.at("a"), &mine).await.expect(200);
    mine["spec"]["size"] = json!(3);
    let body = g.http.put(&g.at("a"), &mine).await.refused(409, "Conflict");
    assert_eq!((&body["details"]["name"], &body["details"]["kind"]), (&json!("a"), &json!("widgets")));
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), second);
}

async fn a_put_of_a_custom_object_names_its_version(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let answer = g.http.put(&g.at("a"), &g.widget_of("a", &json!({"size": 2}))).await;
    answer.invalid("FieldValueInvalid", "metadata.resourceVersion");
}

async fn a_patch_that_names_an_older_version_conflicts(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    let second = g.http.merge(&g.at("a"), &json!({"spec": {"size": 2}})).await.expect(200);
    let patch = |of: &Value| json!({"metadata": {"resourceVersion": version(of)}, "spec": {"size": 3}});
    g.http.merge(&g.at("a"), &patch(&first)).await.refused(409, "Conflict");
    g.http.merge(&g.at("a"), &patch(&second)).await.expect(200);
}

async fn of_several_writers_of_one_version_one_wins(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    let writes = (0..8).map(|writer| {
        let (g, mut mine) = (g.clone(), first.clone());
        mine["spec"]["count"] = json!(writer + 1);
        async move { g.http.put(&g.at("a"), &mine).await.code }
    });
    let mut codes = futures::future::join_all(writes).await;
    codes.sort_unstable();
    assert_eq!(codes, [200, 409, 409, 409, 409, 409, 409, 409]);
}

async fn a_version_differs_after_every_change(g: Ground) {
    let mut seen = vec![version(&g.create("a", &json!({"size": 0})).await).to_owned()];
    for size in 1..5 {
        let patched = g.http.merge(&g.at("a"), &json!({"spec": {"size": size}})).await.expect(200);
        assert!(!seen.iter().any(|earlier| earlier == version(&patched)), "{patched}");
        seen.push(version(&patched).to_owned());
    }
}

async fn a_put_to_nothing_is_not_found(g: Ground) {
    g.http.put(&g.at("a"), &g.widget("a")).await.refused(404, "NotFound");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    g.http.put(&format!("{}/s", g.secrets()), &secret).await.refused(404, "NotFound");
}

async fn a_write_that_changes_nothing_is_no_change(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    let put = g.http.put(&g.at("a"), &first).await.expect(200);
    let patched = g.http.merge(&g.at("a"), &json!({"spec": {"size": 1}})).await.expect(200);
    assert_eq!((version(&put), version(&patched)), (version(&first), version(&first)));
}

async fn a_put_of_a_secret_needs_no_version(g: Ground) {
    let secret =
        |data: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": data}});
    g.http.post(&g.secrets(), &secret("MQ==")).await.expect(201);
    let replaced = g.http.put(&format!("{}/s", g.secrets()), &secret("Mg==")).await.expect(200);
    assert_eq!(replaced["data"]["a"], "Mg==");
}

async fn a_put_of_a_lease_creates_it(g: Ground) {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
                       "spec": {"holderIdentity": "a"}});
    let path = format!("{}/l", g.leases());
    g.http.put(&path, &lease).await.expect(201);
    g.http.put(&path, &lease).await.refused(422, "Invalid");
}

async fn a_deletion_may_name_the_version(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    let second = g.http.merge(&g.at("a"), &json!({"spec": {"size": 2}})).await.expect(200);
    let options = |of: &Value| json!({"preconditions": {"resourceVersion": version(of)}});
    g.http.delete_with(&g.at("a"), &options(&first)).await.refused(409, "Conflict");
    g.http.delete_with(&g.at("a"), &options(&second)).await.expect(200);
}

async fn a_deletion_may_name_the_uid(g: Ground) {
    let object = g.create("a", &json!({"size": 1})).await;
    let other = json!({"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}});
    g.http.delete_with(&g.at("a"), &other).await.refused(409, "Conflict");
    let same = json!({"preconditions": {"uid": object["metadata"]["uid"]}});
    g.http.delete_with(&g.at("a"), &same).await.expect(200);
}

async fn a_dry_run_creates_nothing(g: Ground) {
    let path = format!("{}?dryRun=All", g.widgets());
    let shown = g.http.post(&path, &g.widget("a")).await.expect(201);
    assert_eq!(shown["spec"]["mode"], "rw", "defaults are shown");
    assert!(shown["metadata"]["uid"].is_string());
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn a_dry_run_is_validated(g: Ground) {
    let path = format!("{}?dryRun=All", g.widgets());
    let wrong = g.widget_of("a", &json!({"size": 1, "count": 10}));
    g.http.post(&path, &wrong).await.invalid("FieldValueInvalid", "spec.count");
    g.create("a", &json!({"size": 1})).await;
    g.http.post(&path, &g.widget("a")).await.refused(409, "AlreadyExists");
}

async fn a_dry_run_changes_nothing(g: Ground) {
    let object = g.create("a", &json!({"size": 1})).await;
    let path = format!("{}?dryRun=All", g.at("a"));
    let shown = g.http.merge(&path, &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!(shown["spec"]["size"], 2);
    let mut mine = object.clone();
    mine["spec"]["size"] = json!(3);
    assert_eq!(g.http.put(&path, &mine).await.expect(200)["spec"]["size"], 3);
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), object);
}

async fn a_dry_run_deletes_nothing(g: Ground) {
    let object = g.create("a", &json!({"size": 1})).await;
    g.http.delete(&format!("{}?dryRun=All", g.at("a"))).await.expect(200);
    g.http.delete_with(&g.at("a"), &json!({"dryRun": ["All"]})).await.expect(200);
    g.http.delete(&format!("{}?dryRun=All", g.widgets())).await.expect(200);
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), object);
}

async fn an_unknown_dry_run_is_refused(g: Ground) {
    let path = format!("{}?dryRun=Some", g.widgets());
    g.http.post(&path, &g.widget("a")).await.invalid("FieldValueNotSupported", "dryRun");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn the_generation_counts_changes_of_the_spec(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let generation = |object: Value| object["metadata"]["generation"].clone();
    let labelled = g.http.merge(&g.at("a"), &json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
    assert_eq!(generation(labelled), 1);
    let status = format!("{}/status", g.at("a"));
    let reported = g.http.merge(&status, &json!({"status": {"phase": "Running"}})).await.expect(200);
    assert_eq!(generation(reported), 1);
    let resized = g.http.merge(&g.at("a"), &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!(generation(resized), 2);
}

async fn without_a_status_subresource_the_generation_counts_all_but_metadata(g: Ground) {
    let name = g.own("a");
    let path = format!("{}/{name}", g.gadgets());
    g.http.post(&g.gadgets(), &g.gadget(&name)).await.expect(201);
    let reported = g.http.merge(&path, &json!({"status": {"x": 1}})).await.expect(200);
    assert_eq!((&reported["status"]["x"], &reported["metadata"]["generation"]), (&json!(1), &json!(2)));
    let labelled = g.http.merge(&path, &json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
    g.http.delete(&path).await.expect(200);
}
