//! The port: who is let in, and what others are told.

use kube::api::{Api, DynamicObject, ListParams};
use lvault_apiserver::tls::Identity;
use tokio::net::TcpListener;

use crate::setup::{Http, Listening, THINGS, bounded, in_memory, thing, thing_resource};

#[tokio::test]
async fn without_the_right_token_there_is_nothing_to_see() {
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let good = Http(listening.client(listening.identity.token()).await);
    good.post(THINGS, &thing("a")).await.expect(201);

    let mut almost = listening.identity.token().to_owned();
    almost.replace_range(..1, if almost.starts_with('0') { "1" } else { "0" });
    for token in [almost.as_str(), "x", &format!("{}0", listening.identity.token())] {
        let bad = Http(listening.client(token).await);
        for path in [THINGS, "/apis", "/nothing", "/version", "/healthz"] {
            let refused = bad.get(path).await.refused(401, "Unauthorized");
            assert_eq!(refused["message"], "Unauthorized");
        }
        bad.post(THINGS, &thing("b")).await.refused(401, "Unauthorized");
    }
    let nobody = Http(listening.anonymous().await);
    nobody.get(THINGS).await.refused(401, "Unauthorized");
    nobody.get("/openapi/v3").await.refused(401, "Unauthorized");
    nobody.post(THINGS, &thing("b")).await.refused(401, "Unauthorized");
    assert_eq!(nobody.get("/readyz").await.expect(200), "ok");
    let names = good.get(THINGS).await.expect(200);
    assert_eq!(names["items"].as_array().expect("items").len(), 1);
    listening.stop().await;
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let other = Identity::load_or_create(folder.path()).expect("another identity");
    let text = lvault_apiserver::tls::kubeconfig(listening.address, other.ca_pem(), listening.identity.token());
    let parsed = kube::config::Kubeconfig::from_yaml(&text).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.expect("a config");
    let client = kube::Client::try_from(config).expect("a client");
    let things: Api<DynamicObject> = Api::all_with(client, &thing_resource());
    things.list(&ListParams::default()).await.expect_err("the certificate is not trusted");
    listening.stop().await;
}

#[tokio::test]
async fn only_loopback_is_served() {
    let server = in_memory().await;
    let folder = tempfile::tempdir().expect("a folder");
    let identity = Identity::load_or_create(folder.path()).expect("an identity");
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let served = bounded("the refusal", server.serve(listener, &identity, std::future::pending()));
    let error = served.await.expect_err("refused");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

/// Bytes that are no TLS, and connections that say nothing, leave the listener as it was.
#[tokio::test]
async fn noise_on_the_port_does_no_harm() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(listening.address).await.expect("connects"));
        let mut noisy = tokio::net::TcpStream::connect(listening.address).await.expect("connects");
        noisy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        drop(noisy.read_to_end(&mut answer).await);
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
    }
    let good = Http(listening.client(listening.identity.token()).await);
    good.get(THINGS).await.expect(200);
    listening.stop().await;
}

/// Watches never end by themselves; the listener does not wait for them.
#[tokio::test]
async fn the_listener_ends_in_spite_of_watches() {
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let client = listening.client(listening.identity.token()).await;
    let things: Api<DynamicObject> = Api::all_with(client, &thing_resource());
    let watch = things.watch(&kube::api::WatchParams::default(), "0").await.expect("watches");
    bounded("the end", listening.stop()).await;
    drop(watch);
}

/// A client that writes all of a large body before it reads gets its answer, not a broken connection.
#[tokio::test]
async fn a_large_body_is_answered_to_a_client_that_does_not_listen_meanwhile() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let mut stream = listening.tls().await;
    let length = 10 * 1024 * 1024;
    let head = format!(
        "POST {THINGS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n",
        listening.identity.token()
    );
    let talk = async {
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        stream.write_all(&vec![b' '; length]).await.expect("the body is taken to its end");
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer).await);
        answer
    };
    let answer = bounded("the answer", talk).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    listening.stop().await;
}
