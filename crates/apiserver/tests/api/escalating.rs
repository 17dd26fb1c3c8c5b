//! Nobody grants what he does not have: roles, bindings, and every way to write them.

use http::Method;
use serde_json::{Value, json};

use crate::setup::{BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, Http, ROLES, binding, over_both, rule};

/// jane may write roles and bindings everywhere, and get things.
async fn prepared(http: &Http) {
    let rbac = rule(
        &["get", "create", "update", "patch", "delete"],
        &["rbac.authorization.k8s.io"],
        &["roles", "clusterroles", "rolebindings", "clusterrolebindings"],
        &[],
    );
    http.grant("writer", "jane", &json!([rbac, rule(&["get"], &["example.com"], &["things"], &[])])).await;
    let all = json!([rule(&["*"], &["*"], &["*"], &[])]);
    http.post(CLUSTER_ROLES, &json!({"metadata": {"name": "all"}, "rules": all})).await.expect(201);
    let things = json!([rule(&["get"], &["example.com"], &["things"], &["a"])]);
    http.post(CLUSTER_ROLES, &json!({"metadata": {"name": "less"}, "rules": things})).await.expect(201);
}

fn role(name: &str, verbs: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [rule(verbs, &["example.com"], &["things"], &[])]})
}

#[tokio::test]
async fn nobody_writes_a_role_that_is_more_than_himself() {
    over_both(|http: Http| async move {
        prepared(&http).await;
        let ask = async |method: Method, path: &str, body: &Value| http.as_user("jane", method, path, body).await;
        for path in [ROLES, CLUSTER_ROLES] {
            ask(Method::POST, path, &role("r", &["get"])).await.expect(201);
            for path in [path, &format!("{path}?dryRun=All")] {
                let refused = ask(Method::POST, path, &role("s", &["get", "delete"])).await.refused(403, "Forbidden");
                let message = refused["message"].as_str().expect("text");
                let expected = "user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not \
                                currently held:\n{APIGroups:[\"example.com\"], Resources:[\"things\"], Verbs:[\"delete\"]}";
                assert!(message.ends_with(expected), "{message}");
                assert_eq!(refused["details"]["name"], "s");
            }
            let one = format!("{path}/r");
            let more = json!({"rules": role("r", &["*"])["rules"]});
            ask(Method::PATCH, &one, &more).await.refused(403, "Forbidden");
            ask(Method::PATCH, &format!("{one}?dryRun=All"), &more).await.refused(403, "Forbidden");
            ask(Method::PUT, &one, &role("r", &["list"])).await.refused(403, "Forbidden");
            // An update that creates is a creation.
            ask(Method::PUT, &format!("{path}/new"), &role("new", &["list"])).await.refused(403, "Forbidden");
            ask(Method::PUT, &format!("{path}/new"), &role("new", &["get"])).await.expect(201);
            let unchanged = http.get(&one).await.expect(200);
            assert_eq!(unchanged["rules"][0]["verbs"], json!(["get"]));
            http.get(&format!("{path}/s")).await.refused(404, "NotFound");
        }
        // What somebody else gave a role may stay; links to other objects are nobody's rights.
        http.merge(&format!("{ROLES}/r"), &json!({"rules": role("r", &["delete"])["rules"]})).await.expect(200);
        ask(Method::PATCH, &format!("{ROLES}/r"), &json!({"metadata": {"labels": {"a": "b"}}})).await.refused(403, "Forbidden");
        ask(Method::PATCH, &format!("{ROLES}/r"), &json!({"metadata": {"finalizers": ["a.b/c"]}})).await.expect(200);
        let escalate = rule(&["escalate"], &["rbac.authorization.k8s.io"], &["roles"], &["r"]);
        http.grant("escalate", "jane", &json!([escalate])).await;
        ask(Method::PUT, &format!("{ROLES}/r"), &role("r", &["*"])).await.expect(200);
        ask(Method::PUT, &format!("{ROLES}/new"), &role("new", &["*"])).await.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn nobody_binds_a_role_that_is_more_than_himself() {
    over_both(|http: Http| async move {
        prepared(&http).await;
        let ask = async |method: Method, path: &str, body: &Value| http.as_user("jane", method, path, body).await;
        for path in [BINDINGS, CLUSTER_BINDINGS] {
            ask(Method::POST, path, &binding("l", "ClusterRole", "less", "joe")).await.expect(201);
            ask(Method::POST, path, &binding("m", "ClusterRole", "all", "jane")).await.refused(403, "Forbidden");
            ask(Method::POST, path, &binding("m", "ClusterRole", "cluster-admin", "jane"))
                .await
                .refused(403, "Forbidden");
            let missing = ask(Method::POST, path, &binding("m", "ClusterRole", "none", "jane")).await;
            let missing = missing.refused(404, "NotFound");
            assert_eq!(missing["message"], "clusterroles.rbac.authorization.k8s.io \"none\" not found");
            http.get(&format!("{path}/m")).await.refused(404, "NotFound");
            http.post(path, &binding("n", "ClusterRole", "all", "joe")).await.expect(201);
            let subjects = json!({"subjects": [{"kind": "User", "name": "jane"}]});
            ask(Method::PATCH, &format!("{path}/n"), &subjects).await.refused(403, "Forbidden");
        }
        http.as_user("jane", Method::GET, "/api/v1/secrets", &Value::Null).await.refused(403, "Forbidden");
        let bind = rule(&["bind"], &["rbac.authorization.k8s.io"], &["clusterroles"], &["all"]);
        http.grant("bind", "jane", &json!([bind])).await;
        ask(Method::POST, CLUSTER_BINDINGS, &binding("m", "ClusterRole", "all", "jane")).await.expect(201);
        http.as_user("jane", Method::GET, "/api/v1/secrets", &Value::Null).await.expect(200);
    })
    .await;
}
