//! One of several controllers works, and another one when it is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says why")]

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use lvault_apiserver::{ApiServer, Config};
use lvault_controller::Election;

const DURATION: Duration = Duration::from_secs(10);

async fn server() -> (ApiServer, Client) {
    let server = ApiServer::open(Config::in_memory(Vec::new())).await.unwrap();
    let client = Client::new(server.service(), "default");
    (server, client)
}

fn election(client: &Client, name: &str) -> Election {
    Election::new(client.clone(), "default".to_owned(), name.to_owned(), DURATION)
}

async fn lease(client: &Client) -> Lease {
    Api::namespaced(client.clone(), "default").get("lvault-controller").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_second_works_when_the_first_is_silent_and_not_before() {
    let (_server, client) = server().await;
    let (first, second) = (election(&client, "a"), election(&client, "b"));
    first.acquire().await.unwrap();
    assert!(first.is_leading()() && !second.is_leading()());
    // While the first renews, the second gets nowhere.
    tokio::select! {
        () = first.keep() => panic!("the first lost the lease"),
        got = second.acquire() => panic!("two work at once: {got:?}"),
        () = tokio::time::sleep(DURATION * 5) => {}
    }
    let began = tokio::time::Instant::now();
    second.acquire().await.unwrap();
    assert!(began.elapsed() >= DURATION, "it waited for a whole duration: {:?}", began.elapsed());
    let spec = lease(&client).await.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    // The first finds out with its next look.
    tokio::time::timeout(DURATION, first.keep()).await.expect("the first stops");
    assert!(!first.is_leading()());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_back_is_free_at_once() {
    let (_server, client) = server().await;
    let (first, second) = (election(&client, "a"), election(&client, "b"));
    first.acquire().await.unwrap();
    first.release().await;
    let began = tokio::time::Instant::now();
    second.acquire().await.unwrap();
    assert!(began.elapsed() < DURATION / 2);
    // What is another's is not given back.
    first.release().await;
    assert_eq!(lease(&client).await.spec.unwrap().holder_identity.as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_renew_stops_before_the_lease_is_over() {
    let (server, client) = server().await;
    let first = election(&client, "a");
    first.acquire().await.unwrap();
    server.close().await;
    let began = tokio::time::Instant::now();
    first.keep().await;
    assert!(began.elapsed() < DURATION, "{:?}", began.elapsed());
}
