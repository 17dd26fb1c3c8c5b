//! ServiceAccounts and their tokens, on the port.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lvault_apiserver::{ApiServer, Config, Storage};
use serde_json::{Value, json};

use crate::setup::{
    ACCOUNTS, CLUSTER_BINDINGS, CLUSTER_ROLES, Http, Listening, THINGS, client, in_memory, kinds, over_both, rule,
    thing,
};

fn token(answer: &Value) -> String {
    String::from(answer["status"]["token"].as_str().expect("a token"))
}

async fn may_list_things(owner: &Http, account: &str) {
    let rules = json!([rule(&["list"], &["example.com"], &["things"], &[])]);
    owner.post(CLUSTER_ROLES, &json!({"metadata": {"name": "see"}, "rules": rules})).await.expect(201);
    let subject = json!({"kind": "ServiceAccount", "namespace": "default", "name": account});
    let binding =
        json!({"metadata": {"name": "see"}, "roleRef": {"kind": "ClusterRole", "name": "see"}, "subjects": [subject]});
    owner.post(CLUSTER_BINDINGS, &binding).await.expect(201);
}

#[tokio::test]
async fn a_token_is_its_account_until_that_is_gone() {
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let owner = Http(client(&server));
    owner.post(ACCOUNTS, &json!({"metadata": {"name": "s"}})).await.expect(201);
    may_list_things(&owner, "s").await;
    let request = format!("{ACCOUNTS}/s/token");
    let own = token(&owner.post(&request, &json!({})).await.expect(201));
    let account = Http(listening.client(&own).await);
    account.get(THINGS).await.expect(200);
    let refused = account.post(THINGS, &thing("a")).await.refused(403, "Forbidden");
    let message = refused["message"].as_str().expect("text");
    assert!(message.contains("User \"system:serviceaccount:default:s\" cannot create"), "{message}");
    let whoami = account.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    let info = &whoami["status"]["userInfo"];
    assert_eq!(
        info["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let uid = owner.get(&format!("{ACCOUNTS}/s")).await.expect(200)["metadata"]["uid"].clone();
    assert_eq!(info["uid"], uid);
    account.post(&request, &json!({})).await.refused(403, "Forbidden");

    // Not for this server; changed; of an account of the same name that came later.
    let elsewhere = owner.post(&request, &json!({"spec": {"audiences": ["elsewhere"]}})).await.expect(201);
    let elsewhere = token(&elsewhere);
    Http(listening.client(&elsewhere).await).get(THINGS).await.refused(401, "Unauthorized");
    let review = |token: &str, audiences: &Value| json!({"spec": {"token": token, "audiences": audiences}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let seen = owner.post(reviews, &review(&elsewhere, &json!(["elsewhere", "x"]))).await.expect(201);
    assert_eq!((&seen["status"]["authenticated"], &seen["status"]["audiences"]), (&json!(true), &json!(["elsewhere"])));
    let seen = owner.post(reviews, &review(&elsewhere, &json!([]))).await.expect(201);
    assert!(seen["status"]["authenticated"].is_null());
    let mut changed = own.clone();
    changed.replace_range(own.len() - 2..own.len() - 1, if own.as_bytes()[own.len() - 2] == b'A' { "B" } else { "A" });
    Http(listening.client(&changed).await).get(THINGS).await.refused(401, "Unauthorized");
    owner.delete(&format!("{ACCOUNTS}/s"), &Value::Null).await.expect(200);
    account.get(THINGS).await.refused(401, "Unauthorized");
    owner.post(ACCOUNTS, &json!({"metadata": {"name": "s"}})).await.expect(201);
    account.get(THINGS).await.refused(401, "Unauthorized");
    listening.stop().await;
}

#[tokio::test]
async fn what_a_token_is_asked_for_is_checked() {
    over_both(|http: Http| async move {
        http.post(ACCOUNTS, &json!({"metadata": {"name": "s"}})).await.expect(201);
        let request = format!("{ACCOUNTS}/s/token");
        let made = http.post(&request, &json!({"spec": {"expirationSeconds": 600}})).await.expect(201);
        assert_eq!(made["kind"], "TokenRequest");
        assert_eq!(made["spec"]["audiences"], json!(["https://kubernetes.default.svc"]));
        for seconds in [599, (1_i64 << 32) + 1, -1] {
            http.post(&request, &json!({"spec": {"expirationSeconds": seconds}})).await.refused(422, "Invalid");
        }
        http.post(&format!("{ACCOUNTS}/none/token"), &json!({})).await.refused(404, "NotFound");
        http.post(&request, &json!({"metadata": {"name": "t"}})).await.refused(400, "BadRequest");
        http.post(&request, &json!({"kind": "Odd"})).await.refused(400, "BadRequest");
        http.get(&request).await.refused(405, "MethodNotAllowed");
        let bound = |name: &str, uid: &str| {
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid}}})
        };
        http.post(&request, &bound("x", "")).await.refused(404, "NotFound");
        http.post(crate::setup::SECRETS, &json!({"metadata": {"name": "x"}})).await.expect(201);
        http.post(&request, &bound("x", "other")).await.refused(409, "Conflict");
        let token = token(&http.post(&request, &bound("x", "")).await.expect(201));
        let odd = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Namespace", "name": "default"}}});
        http.post(&request, &odd).await.refused(400, "BadRequest");
        let review = json!({"spec": {"token": token}});
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        assert_eq!(http.post(reviews, &review).await.expect(201)["status"]["authenticated"], true);
        http.delete(&format!("{}/x", crate::setup::SECRETS), &Value::Null).await.expect(200);
        assert!(http.post(reviews, &review).await.expect(201)["status"]["authenticated"].is_null());
    })
    .await;
}

#[tokio::test]
async fn tokens_end_with_their_time_and_live_through_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let time = Arc::new(AtomicI64::new(1_700_000_000));
    let now = Arc::clone(&time);
    let config = || Config {
        storage: Storage::File(folder.path().join("store")),
        clock: {
            let now = Arc::clone(&now);
            Arc::new(move || jiff::Timestamp::from_second(now.load(Ordering::Relaxed)).expect("a time"))
        },
        ..Config::in_memory(kinds())
    };
    let server = ApiServer::open(config()).await.expect("opens");
    let owner = Http(client(&server));
    owner.post(ACCOUNTS, &json!({"metadata": {"name": "s", "finalizers": ["a.b/c"]}})).await.expect(201);
    let token = token(&owner.post(&format!("{ACCOUNTS}/s/token"), &json!({})).await.expect(201));
    server.close().await;
    drop((server, owner));
    let server = ApiServer::open(config()).await.expect("opens again");
    let owner = Http(client(&server));
    let listening = Listening::start(&server).await;
    let account = Http(listening.client(&token).await);
    let at = |seconds: i64| time.store(1_700_000_000 + seconds, Ordering::Relaxed);
    for (seconds, code) in [(0, 200), (3599, 200), (3600, 401), (-1, 401), (10, 200)] {
        at(seconds);
        assert_eq!(account.get("/api").await.code, code, "{seconds} s");
    }
    // An account that is being deleted vouches for a minute more, as on a cluster.
    owner.delete(&format!("{ACCOUNTS}/s"), &Value::Null).await.expect(200);
    for (seconds, code) in [(70, 200), (71, 401)] {
        at(seconds);
        assert_eq!(account.get("/api").await.code, code, "{seconds} s");
    }
    listening.stop().await;
}
