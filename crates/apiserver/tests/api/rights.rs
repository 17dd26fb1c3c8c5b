//! Rights: what a rule grants is done, what none grants is refused, and a refusal tells nothing.

use std::sync::{Arc, Mutex};

use http::Method;
use lvault_apiserver::{ApiServer, Config, Decision, Grant, User};
use serde_json::{Value, json};

use crate::setup::{
    BINDINGS, BOXES, CLUSTER_BINDINGS, CLUSTER_ROLES, Http, RBAC, ROLES, SECRETS, THINGS, binding, box_of, client_as,
    in_memory, kinds, over_both, rule, thing,
};

const GET: Method = Method::GET;

#[tokio::test]
async fn nothing_is_allowed_that_no_rule_grants() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        let before = http.revision().await;
        let one = format!("{THINGS}/a");
        let none = format!("{THINGS}/none");
        let cases = [
            (GET, THINGS, "list", ""),
            (GET, &one, "get", " \"a\""),
            (GET, &none, "get", " \"none\""),
            (Method::POST, THINGS, "create", ""),
            (Method::PUT, &one, "update", " \"a\""),
            (Method::PATCH, &none, "patch", " \"none\""),
            (Method::DELETE, &one, "delete", " \"a\""),
            (Method::DELETE, THINGS, "deletecollection", ""),
        ];
        for (method, path, verb, name) in cases {
            let refused = http.as_user("jane", method, path, &thing("a")).await.refused(403, "Forbidden");
            let expected = format!(
                "things.example.com{name} is forbidden: User \"jane\" cannot {verb} resource \"things\" in API group \
                 \"example.com\" at the cluster scope"
            );
            assert_eq!(refused["message"], expected);
            let mut details = json!({"group": "example.com", "kind": "things"});
            if !name.is_empty() {
                details["name"] = json!(name.trim_matches([' ', '"']));
            }
            assert_eq!(refused["details"], details);
        }
        let refused = http.as_user("jane", GET, &format!("{THINGS}?watch=1"), &Value::Null).await;
        assert!(refused.refused(403, "Forbidden")["message"].as_str().expect("text").contains("cannot watch"));
        let refused = http.as_user("jane", GET, SECRETS, &Value::Null).await.refused(403, "Forbidden");
        let expected = "secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the \
                        namespace \"default\"";
        assert_eq!(refused["message"], expected);
        // Also of what does not exist at all.
        http.as_user("jane", GET, "/apis/none.com/v1/odds", &Value::Null).await.refused(403, "Forbidden");
        let refused = http.as_user("jane", GET, "/metrics", &Value::Null).await.refused(403, "Forbidden");
        assert_eq!(refused["message"], "forbidden: User \"jane\" cannot get path \"/metrics\"");
        assert_eq!(refused["details"], json!({}));
        assert_eq!(http.revision().await, before, "nothing was changed");
        for path in ["/version", "/healthz", "/api", "/apis", "/apis/example.com/v1", "/openapi/v3"] {
            http.as_user("jane", GET, path, &Value::Null).await.expect(200);
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_rule_grants_is_done_and_no_more() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        http.post(THINGS, &thing("b")).await.expect(201);
        let rules = json!([
            rule(&["get", "list", "watch"], &["example.com"], &["things"], &["a"]),
            rule(&["patch"], &["example.com"], &["things/status"], &[])
        ]);
        http.grant("some", "jane", &rules).await;
        let ask = async |method: Method, target: &str, body: &Value| http.as_user("jane", method, target, body).await;
        let (a, b) = (format!("{THINGS}/a"), format!("{THINGS}/b"));
        ask(GET, &a, &Value::Null).await.expect(200);
        ask(GET, &b, &Value::Null).await.refused(403, "Forbidden");
        ask(GET, THINGS, &Value::Null).await.refused(403, "Forbidden");
        let list = ask(GET, &format!("{THINGS}?fieldSelector=metadata.name%3Da"), &Value::Null).await.expect(200);
        assert_eq!(list["items"].as_array().expect("items").len(), 1);
        ask(GET, &format!("{THINGS}?fieldSelector=metadata.name%3Db"), &Value::Null).await.refused(403, "Forbidden");
        let watch = format!("{THINGS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Da");
        ask(GET, &watch, &Value::Null).await.expect(200);
        let phase = json!({"status": {"phase": "Pending"}});
        ask(Method::PATCH, &format!("{b}/status"), &phase).await.expect(200);
        ask(Method::PATCH, &b, &json!({"spec": {"count": 2}})).await.refused(403, "Forbidden");
        ask(Method::PUT, &format!("{a}/status"), &thing("a")).await.refused(403, "Forbidden");
        ask(GET, &format!("{a}/status"), &Value::Null).await.refused(403, "Forbidden");

        // Taken back, it is gone with the next request.
        http.delete(&format!("{CLUSTER_BINDINGS}/some"), &Value::Null).await.expect(200);
        ask(GET, &a, &Value::Null).await.refused(403, "Forbidden");
        http.post(CLUSTER_BINDINGS, &binding("some", "ClusterRole", "some", "jane")).await.expect(201);
        ask(GET, &a, &Value::Null).await.expect(200);
        http.merge(&format!("{CLUSTER_ROLES}/some"), &json!({"rules": []})).await.expect(200);
        ask(GET, &a, &Value::Null).await.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn rights_in_a_namespace_end_at_its_border() {
    over_both(|http: Http| async move {
        http.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
        http.post(BOXES, &box_of("b")).await.expect(201);
        let rules = json!([rule(&["*"], &["example.com"], &["boxes"], &[]), rule(&["get"], &[""], &["namespaces"], &[])]);
        http.post(ROLES, &json!({"metadata": {"name": "r"}, "rules": rules})).await.expect(201);
        http.post(BINDINGS, &binding("r", "Role", "r", "jane")).await.expect(201);
        let ask = async |target: &str| http.as_user("jane", GET, target, &Value::Null).await;
        ask(BOXES).await.expect(200);
        ask(&format!("{BOXES}/b")).await.expect(200);
        ask("/api/v1/namespaces/default").await.expect(200);
        ask("/apis/example.com/v1/boxes").await.refused(403, "Forbidden");
        ask("/apis/example.com/v1/namespaces/other/boxes").await.refused(403, "Forbidden");
        ask("/api/v1/namespaces/other").await.refused(403, "Forbidden");

        // A ClusterRole in a RoleBinding counts in the namespace of the binding only.
        let rules = json!([rule(&["list"], &["example.com"], &["things"], &[]), rule(&["list"], &[""], &["secrets"], &[]),
                           {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]);
        http.post(CLUSTER_ROLES, &json!({"metadata": {"name": "c"}, "rules": rules})).await.expect(201);
        http.post(BINDINGS, &binding("c", "ClusterRole", "c", "jane")).await.expect(201);
        ask(SECRETS).await.expect(200);
        ask("/api/v1/secrets").await.refused(403, "Forbidden");
        ask(THINGS).await.refused(403, "Forbidden");
        ask("/metrics").await.refused(403, "Forbidden");
        // A role that is not there grants nothing, until it is.
        http.post(BINDINGS, &binding("late", "Role", "late", "joe")).await.expect(201);
        http.as_user("joe", GET, BOXES, &Value::Null).await.refused(403, "Forbidden");
        let rules = json!([rule(&["list"], &["example.com"], &["boxes"], &[])]);
        http.post(ROLES, &json!({"metadata": {"name": "late"}, "rules": rules})).await.expect(201);
        http.as_user("joe", GET, BOXES, &Value::Null).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_put_that_creates_needs_the_right_to_create() {
    over_both(|http: Http| async move {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
        http.grant("half", "jane", &json!([rule(&["update"], &["coordination.k8s.io"], &["leases"], &[])])).await;
        let object = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
        let refused = http.as_user("jane", Method::PUT, lease, &object).await.refused(403, "Forbidden");
        assert!(refused["message"].as_str().expect("text").contains("cannot create resource \"leases\""), "{refused}");
        http.get(lease).await.refused(404, "NotFound");
        http.grant("rest", "jane", &json!([rule(&["create"], &["coordination.k8s.io"], &["leases"], &[])])).await;
        http.as_user("jane", Method::PUT, lease, &object).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn acting_as_another_is_a_right_of_its_own() {
    over_both(|http: Http| async move {
        let impersonate = |resources: &[&str], names: &[&str]| rule(&["impersonate"], &[""], resources, names);
        let server_side = json!([impersonate(&["users"], &["joe"]), impersonate(&["groups"], &["team"])]);
        http.grant("actor", "jane", &server_side).await;
        http.post(
            CLUSTER_ROLES,
            &json!({"metadata": {"name": "see"},
                  "rules": [rule(&["list"], &["example.com"], &["things"], &[])]}),
        )
        .await
        .expect(201);
        let mut team = binding("see", "ClusterRole", "see", "x");
        team["subjects"] = json!([{"kind": "Group", "name": "team"}]);
        http.post(CLUSTER_BINDINGS, &team).await.expect(201);
        let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut all = vec![("content-type", "application/json")];
            all.extend_from_slice(pairs);
            all
        };
        let own = http.send(Method::POST, whoami, &headers(&[]), body.clone().into_bytes()).await.expect(201);
        assert_eq!(own["status"]["userInfo"]["username"], "owner");
        let jane =
            headers(&[("impersonate-user", "jane"), ("impersonate-group", "team"), ("impersonate-extra-x", "y")]);
        let seen = http.send(Method::POST, whoami, &jane, body.into_bytes()).await.expect(201);
        let info = json!({"username": "jane", "groups": ["team", "system:authenticated"], "extra": {"x": ["y"]}});
        assert_eq!(seen["status"]["userInfo"], info);
        http.send(GET, THINGS, &jane, Vec::new()).await.expect(200);
        http.as_user("jane", GET, THINGS, &Value::Null).await.refused(403, "Forbidden");
        let masters = headers(&[("impersonate-user", "jane"), ("impersonate-group", "system:masters")]);
        http.send(GET, "/api/v1/secrets", &masters, Vec::new()).await.expect(200);
        http.send(GET, THINGS, &headers(&[("impersonate-group", "team")]), Vec::new())
            .await
            .refused(500, "InternalError");
    })
    .await;
    // One who is not the owner: what is not granted by name is refused.
    let server = in_memory().await;
    let owner = Http(crate::setup::client(&server));
    let users = rule(&["impersonate"], &[""], &["users"], &["joe"]);
    let groups = rule(&["impersonate"], &[""], &["groups"], &["team"]);
    owner.grant("actor", "jane", &json!([users, groups])).await;
    let jane = client_as(&server, User::named("jane", &[]));
    let refused = jane.as_user("jim", GET, "/version", &Value::Null).await.refused(403, "Forbidden");
    let expected = "users \"jim\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the \
                    cluster scope";
    assert_eq!(refused["message"], expected);
    jane.as_user("joe", GET, "/version", &Value::Null).await.expect(200);
    for group in ["system:masters", "other"] {
        let headers = [("impersonate-user", "joe"), ("impersonate-group", group)];
        jane.send(GET, "/version", &headers, Vec::new()).await.refused(403, "Forbidden");
    }
    for (name, value) in [("impersonate-uid", "1"), ("impersonate-extra-k", "v")] {
        let headers = [("impersonate-user", "joe"), (name, value)];
        jane.send(GET, "/version", &headers, Vec::new()).await.refused(403, "Forbidden");
    }
    let account = "system:serviceaccount:default:s";
    let refused = jane.as_user(account, GET, "/version", &Value::Null).await.refused(403, "Forbidden");
    assert!(refused["message"].as_str().expect("text").starts_with("serviceaccounts \"s\" is forbidden"), "{refused}");
}

#[tokio::test]
async fn rights_can_be_asked_for() {
    over_both(|http: Http| async move {
        http.grant("some", "jane", &json!([rule(&["get"], &["example.com"], &["things"], &["a"])])).await;
        let reviews = "/apis/authorization.k8s.io/v1";
        let about = |name: &str| json!({"verb": "get", "group": "example.com", "resource": "things", "name": name});
        for (name, allowed) in [("a", true), ("b", false)] {
            let question = json!({"spec": {"resourceAttributes": about(name)}});
            let path = format!("{reviews}/selfsubjectaccessreviews");
            let own = http.as_user("jane", Method::POST, &path, &question).await.expect(201);
            assert_eq!(own["status"]["allowed"], allowed, "{own}");
            let question = json!({"spec": {"user": "jane", "resourceAttributes": about(name)}});
            let other = http.post(&format!("{reviews}/subjectaccessreviews"), &question).await.expect(201);
            assert_eq!(other["status"]["allowed"], allowed, "{other}");
            if allowed {
                let reason = "RBAC: allowed by ClusterRoleBinding \"some\" of ClusterRole \"some\"";
                assert_eq!(other["status"]["reason"], reason);
            }
        }
        let path = format!("{reviews}/subjectaccessreviews");
        let version = json!({"path": "/version", "verb": "get"});
        let question = json!({"spec": {"groups": ["system:unauthenticated"], "nonResourceAttributes": version}});
        assert_eq!(http.post(&path, &question).await.expect(201)["status"]["allowed"], true);
        http.as_user("jane", Method::POST, &path, &question).await.refused(403, "Forbidden");
        http.post(&path, &json!({"spec": {"user": "jane"}})).await.refused(422, "Invalid");
        http.post(&path, &json!({"spec": {"resourceAttributes": about("a")}})).await.refused(422, "Invalid");
        let local = format!("{reviews}/namespaces/default/localsubjectaccessreviews");
        let elsewhere = json!({"spec": {"user": "jane", "resourceAttributes": about("a")}});
        http.post(&local, &elsewhere).await.refused(422, "Invalid");
        let path = format!("{reviews}/selfsubjectrulesreviews");
        let rules =
            http.as_user("jane", Method::POST, &path, &json!({"spec": {"namespace": "default"}})).await.expect(201);
        let expected =
            json!({"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"], "resourceNames": ["a"]});
        assert!(rules["status"]["resourceRules"].as_array().expect("rules").contains(&expected), "{rules}");
        http.get(&path).await.refused(405, "MethodNotAllowed");
        http.get(&format!("{path}/x")).await.refused(404, "NotFound");
        http.post(&path, &json!({"kind": "Odd", "spec": {"namespace": "default"}})).await.refused(400, "BadRequest");
    })
    .await;
}

#[tokio::test]
async fn every_decision_is_told_with_the_rule_it_rests_on() {
    let heard: Arc<Mutex<Vec<Decision>>> = Arc::default();
    let ears = Arc::clone(&heard);
    let observer = Arc::new(move |decision: &Decision| ears.lock().expect("whole").push(decision.clone()));
    let config = Config { observer: Some(observer), ..Config::in_memory(kinds()) };
    let server = ApiServer::open(config).await.expect("opens");
    let owner = Http(crate::setup::client(&server));
    let rules = json!([rule(&["get"], &[""], &["secrets"], &[]), rule(&["list"], &["example.com"], &["things"], &[])]);
    owner.grant("some", "jane", &rules).await;
    heard.lock().expect("whole").clear();
    let jane = client_as(&server, User::named("jane", &[]));
    jane.get(THINGS).await.expect(200);
    jane.get(&format!("{THINGS}/a")).await.refused(403, "Forbidden");
    owner.get(THINGS).await.expect(200);
    let heard = heard.lock().expect("whole");
    let [listed, refused, owned] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((listed.user.name.as_str(), listed.asked.verb.as_str(), listed.is_allowed()), ("jane", "list", true));
    let Some(Grant::Rule(place)) = &listed.grant else { panic!("{listed:?}") };
    assert_eq!((place.binding.as_str(), place.role.as_str(), place.rule), ("some", "some", 1));
    assert_eq!((refused.asked.name.as_str(), refused.is_allowed()), ("a", false));
    assert_eq!(owned.grant, Some(Grant::Master));
}

#[tokio::test]
async fn roles_are_objects_with_rules_of_their_own() {
    over_both(|http: Http| async move {
        let discovery = http.get(&format!("{CLUSTER_ROLES}/system:discovery")).await.expect(200);
        assert_eq!(discovery["rules"][0]["verbs"], json!(["get"]));
        let wrong = [
            (ROLES, json!({"metadata": {"name": "r"}, "rules": [{"verbs": []}]})),
            (ROLES, json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
            (ROLES, json!({"metadata": {"name": "a%b"}, "rules": []})),
            (CLUSTER_ROLES, json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": []}})),
            (BINDINGS, binding("r", "Odd", "r", "jane")),
            (CLUSTER_BINDINGS, binding("r", "Role", "r", "jane")),
        ];
        for (path, object) in wrong {
            http.post(path, &object).await.refused(422, "Invalid");
        }
        let made = http.post(BINDINGS, &binding("b:x", "Role", "r", "jane")).await.expect(201);
        assert_eq!(made["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(made["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
        assert!(made["metadata"].get("generation").is_none());
        let other = json!({"roleRef": {"name": "other"}});
        let refused = http.merge(&format!("{BINDINGS}/b:x"), &other).await.refused(422, "Invalid");
        assert_eq!(refused["details"]["causes"][0]["field"], "roleRef");
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = http.send(GET, &format!("{RBAC}/rolebindings"), &table, Vec::new()).await.expect(200);
        assert_eq!(table["rows"][0]["cells"][1], "Role/r");
    })
    .await;
}

/// An apply that would create needs `create` as well as `patch`; one that changes needs `patch` alone.
#[tokio::test]
async fn an_apply_that_creates_needs_the_right_to_create() {
    over_both(|http: Http| async move {
        http.grant("patches", "jane", &json!([rule(&["patch", "get"], &["example.com"], &["things"], &[])])).await;
        let path = format!("{THINGS}/new?fieldManager=jane");
        let mut body = thing("new");
        body["apiVersion"] = json!("example.com/v1");
        body["kind"] = json!("Thing");
        let apply = async |user: &str| {
            let headers = [("impersonate-user", user), ("content-type", "application/apply-patch+yaml")];
            http.send(Method::PATCH, &path, &headers, body.to_string().into_bytes()).await
        };
        let before = http.revision().await;
        let refused = apply("jane").await.refused(403, "Forbidden");
        assert!(refused["message"].as_str().expect("text").contains("cannot create"), "{refused}");
        assert_eq!(http.revision().await, before);
        http.grant("creates", "jane", &json!([rule(&["create"], &["example.com"], &["things"], &[])])).await;
        apply("jane").await.expect(201);
        http.delete(&format!("{CLUSTER_BINDINGS}/creates"), &Value::Null).await.expect(200);
        apply("jane").await.expect(200);
    })
    .await;
}
