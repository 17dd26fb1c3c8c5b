//! Limits: what is too much is answered with 429, and places are given back.

use futures::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use lvault_apiserver::{ApiServer, Config, Limits, User};
use tower::ServiceExt as _;

use crate::setup::{Http, THINGS, client, client_as, kinds, over_both, rule, thing};
use serde_json::json;

async fn limited(limits: Limits) -> (ApiServer, Http) {
    let server = ApiServer::open(Config { limits, ..Config::in_memory(kinds()) }).await.expect("opens");
    let owner = Http(client(&server));
    let rules = json!([rule(&["*"], &["example.com"], &["things"], &[])]);
    owner.grant("jane", "jane", &rules).await;
    owner.grant("joe", "joe", &rules).await;
    (server, owner)
}

fn request(target: &str) -> Request<http_body_util::Empty<bytes::Bytes>> {
    Request::get(target).body(http_body_util::Empty::new()).expect("a request")
}

#[tokio::test]
async fn watches_are_counted_for_each_user_and_for_all() {
    let (server, owner) = limited(Limits { watches: 3, watches_per_user: 2, ..Limits::default() }).await;
    let target = format!("{THINGS}?watch=1");
    let watch = async |user: &str| {
        let service = server.service_as(User::named(user, &[]));
        service.oneshot(request(&target)).await.expect("an answer")
    };
    let first = watch("jane").await;
    let second = watch("jane").await;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let refused = watch("jane").await;
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let body = refused.into_body().collect().await.expect("a body").to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).expect("a Status");
    assert_eq!((&status["reason"], &status["details"]), (&json!("TooManyRequests"), &json!({"retryAfterSeconds": 1})));
    let third = watch("joe").await;
    assert_eq!(third.status().as_u16(), 200);
    assert_eq!(watch("joe").await.status().as_u16(), 429);

    // Watches take no places of other requests, and the owner needs none.
    client_as(&server, User::named("jane", &[])).get(THINGS).await.expect(200);
    let own = server.service().oneshot(request(&target)).await.expect("an answer");
    assert_eq!(own.status().as_u16(), 200);
    owner.post(THINGS, &thing("a")).await.expect(201);
    let mut stream = first.into_body().into_data_stream();
    assert!(stream.next().await.expect("an event").is_ok());
    drop(stream);
    assert_eq!(watch("jane").await.status().as_u16(), 200, "its place was given back");
}

#[tokio::test]
async fn requests_under_way_are_counted() {
    let (server, owner) = limited(Limits { reads: 1, writes: 1, ..Limits::default() }).await;
    let jane = || server.service_as(User::named("jane", &[]));
    let held = jane().oneshot(request(THINGS)).await.expect("an answer");
    let refused = client_as(&server, User::named("joe", &[])).get(THINGS).await;
    assert_eq!(refused.refused(429, "TooManyRequests")["message"], "Too many requests, please try again later.");
    client_as(&server, User::named("joe", &[])).post(THINGS, &thing("a")).await.expect(201);
    owner.get(THINGS).await.expect(200);
    drop(held);
    client_as(&server, User::named("joe", &[])).get(THINGS).await.expect(200);
}

#[tokio::test]
async fn places_come_back_however_a_request_ends() {
    over_both(|http: Http| async move {
        for _ in 0..20 {
            http.as_user("nobody", http::Method::GET, THINGS, &serde_json::Value::Null).await.refused(403, "Forbidden");
        }
    })
    .await;
    let (server, _owner) = limited(Limits { reads: 1, writes: 1, watches: 1, watches_per_user: 1 }).await;
    let (jane, nobody) = (client_as(&server, User::named("jane", &[])), client_as(&server, User::named("nobody", &[])));
    for _ in 0..3 {
        nobody.get(THINGS).await.refused(403, "Forbidden");
        nobody.get(&format!("{THINGS}?watch=1")).await.refused(403, "Forbidden");
        jane.get(&format!("{THINGS}?watch=1&resourceVersion=x")).await.refused(400, "BadRequest");
        jane.post(THINGS, &json!([])).await.refused(400, "BadRequest");
        jane.get(&format!("{THINGS}?watch=1&timeoutSeconds=1")).await.expect(200);
    }
}
