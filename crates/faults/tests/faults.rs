//! Each fault, before a server that counts.

#![expect(clippy::expect_used, reason = "tests: a helper that cannot go on fails its test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use lvault_faults::{Cut, Fault, Faults, Lost, Plan, Refusal, Seen};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

/// What a client sees: the code and the text, and whether the body broke; or the words of the error.
type Outcome = Result<(u16, String), String>;

struct Scene {
    faults: Faults,
    served: Arc<AtomicUsize>,
}

impl Scene {
    fn new(plan: Plan) -> Scene {
        Scene { faults: Faults::new(plan), served: Arc::new(AtomicUsize::new(0)) }
    }

    /// Sends a request to a server that answers with how many it has served, its body echoed.
    async fn send(&self, method: Method, target: &str, body: &'static str) -> Outcome {
        let served = Arc::clone(&self.served);
        let server = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let served = Arc::clone(&served);
            async move {
                let count = served.fetch_add(1, Ordering::SeqCst) + 1;
                let body = request.into_body().collect().await.expect("whole").to_bytes();
                let text = format!("{count}:{}\nmore\nand more\n", String::from_utf8_lossy(&body));
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            }
        });
        let request =
            Request::builder().method(method).uri(target).body(Full::new(Bytes::from_static(body.as_bytes())));
        let response = self.faults.layer(server).oneshot(request.expect("a request")).await;
        let response = response.map_err(|error| error.downcast::<Lost>().expect("lost").to_string())?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((code, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

const ITEM: &str = "/api/v1/namespaces/a/secrets/b";
const LIST: &str = "/api/v1/secrets?resourceVersion=0";
const WATCH: &str = "/api/v1/secrets?watch=true";

fn scene(fault: Fault) -> Scene {
    Scene::new(Plan::nothing().at(0, fault))
}

#[tokio::test]
async fn without_a_plan_everything_passes() {
    let scene = Scene::new(Plan::nothing());
    assert_eq!(scene.send(Method::PUT, ITEM, "x").await, Ok((200, String::from("1:x\nmore\nand more\n"))));
    assert_eq!((scene.faults.requests(), scene.faults.log()), (1, Vec::new()));
}

#[tokio::test]
async fn a_lost_request_is_not_served_and_a_lost_answer_is() {
    let lost = scene(Fault::LoseRequest(Seen::Error));
    let seen = lost.send(Method::PUT, ITEM, "x").await.expect_err("an error");
    assert!(seen.contains("the request got lost"), "{seen}");
    assert_eq!(lost.served(), 0);
    let lost = scene(Fault::LoseAnswer(Seen::Error));
    let seen = lost.send(Method::PUT, ITEM, "x").await.expect_err("an error");
    assert!(seen.contains("the answer got lost"), "{seen}");
    assert_eq!(lost.served(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_never_comes_is_for_a_timeout() {
    for (fault, served) in [(Fault::LoseRequest(Seen::Never), 0), (Fault::LoseAnswer(Seen::Never), 1)] {
        let lost = scene(fault);
        let waited = tokio::time::timeout(Duration::from_secs(3600), lost.send(Method::PUT, ITEM, "x")).await;
        assert!(waited.is_err(), "{fault:?}");
        assert_eq!(lost.served(), served, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn delays_take_their_time() {
    let by = Duration::from_secs(7);
    for (fault, served) in [(Fault::Delay(by), 0), (Fault::DelayAnswer(by), 1)] {
        let late = scene(fault);
        let start = Instant::now();
        let sending = late.send(Method::PUT, ITEM, "x");
        let mut sending = std::pin::pin!(sending);
        assert!(tokio::time::timeout(by / 2, &mut sending).await.is_err());
        assert_eq!(late.served(), served, "{fault:?}");
        assert!(sending.await.is_ok());
        assert_eq!((late.served(), start.elapsed()), (1, by), "{fault:?}");
    }
}

#[tokio::test]
async fn a_duplicate_is_served_twice_with_the_same_body() {
    let twice = scene(Fault::Duplicate);
    assert_eq!(twice.send(Method::POST, ITEM, "x").await, Ok((200, String::from("2:x\nmore\nand more\n"))));
    assert_eq!(twice.served(), 2);
}

#[tokio::test]
async fn refusals_are_status_objects() {
    for (refusal, code, reason) in [
        (Refusal::Conflict, 409, "Conflict"),
        (Refusal::TooManyRequests { retry_after: 3 }, 429, "TooManyRequests"),
        (Refusal::Internal, 500, "InternalError"),
        (Refusal::Unavailable, 503, "ServiceUnavailable"),
    ] {
        for (fault, served) in [(Fault::Refuse(refusal), 0), (Fault::FailAnswer(refusal), 1)] {
            let refused = scene(fault);
            let (found, body) = refused.send(Method::PUT, ITEM, "x").await.expect("an answer");
            let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(
                (found, status["code"].as_u64(), status["reason"].as_str()),
                (code, Some(u64::from(code)), Some(reason))
            );
            assert_eq!(refused.served(), served, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn too_many_requests_say_when_to_come_back() {
    let faults = Faults::new(Plan::nothing().at(0, Fault::Refuse(Refusal::TooManyRequests { retry_after: 3 })));
    let server = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    });
    let request = Request::get(ITEM).body(Full::new(Bytes::new())).expect("a request");
    let response = faults.layer(server).oneshot(request).await.expect("an answer");
    assert_eq!(response.headers()["retry-after"], "3");
}

#[tokio::test]
async fn watches_are_cut() {
    let cut = |how| scene(Fault::CutWatch { after: 1, how });
    assert_eq!(cut(Cut::Clean).send(Method::GET, WATCH, "").await, Ok((200, String::from("1:\n"))));
    assert_eq!(cut(Cut::Torn).send(Method::GET, WATCH, "").await, Ok((200, String::from("1:\nmo"))));
    let broken = cut(Cut::Broken).send(Method::GET, WATCH, "").await.expect_err("an error");
    assert!(broken.contains("the connection broke"), "{broken}");
    let no_watch = cut(Cut::Clean);
    assert_eq!(no_watch.send(Method::GET, LIST, "").await, Ok((200, String::from("1:\nmore\nand more\n"))));
    assert!(no_watch.faults.log().is_empty(), "what does not fit does not happen");
}

#[tokio::test(start_paused = true)]
async fn a_stale_watch_is_late_and_whole() {
    let start = Instant::now();
    let stale = scene(Fault::StaleWatch(Duration::from_secs(9)));
    assert_eq!(stale.send(Method::GET, WATCH, "").await, Ok((200, String::from("1:\nmore\nand more\n"))));
    assert_eq!(start.elapsed(), Duration::from_secs(9));
}

#[tokio::test]
async fn an_expired_watch_is_told_in_the_stream() {
    let expired = scene(Fault::ExpireWatch);
    let (code, body) = expired.send(Method::GET, WATCH, "").await.expect("an answer");
    let event: serde_json::Value = serde_json::from_str(body.trim()).expect("one event");
    assert_eq!((code, event["type"].as_str(), event["object"]["code"].as_u64()), (200, Some("ERROR"), Some(410)));
    assert_eq!(expired.served(), 0);
}

#[tokio::test]
async fn a_stale_list_answers_what_it_answered_before() {
    let scene = Scene::new(Plan::nothing().at(0, Fault::StaleList).at(3, Fault::StaleList));
    let list = |count: u32| Ok((200, format!("{count}:\nmore\nand more\n")));
    assert_eq!(scene.send(Method::GET, LIST, "").await, list(1), "there is nothing older yet");
    assert_eq!(scene.send(Method::GET, LIST, "").await, list(2));
    assert_eq!(scene.send(Method::GET, "/api/v1/events", "").await, list(3));
    assert_eq!(scene.send(Method::GET, LIST, "").await, list(1), "of the same list");
    assert_eq!(scene.send(Method::GET, LIST, "").await, list(4));
}

#[tokio::test]
async fn faults_are_logged_and_end_when_planned() {
    let scene = Scene::new(Plan::drawn(5, 1000, vec![Fault::LoseRequest(Seen::Error)]));
    for _ in 0..3 {
        assert!(scene.send(Method::PUT, ITEM, "x").await.is_err());
    }
    let log = scene.faults.log();
    assert_eq!(log.iter().map(|record| record.request).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(
        (&log[0].method, log[0].target.as_str(), log[0].fault),
        (&Method::PUT, ITEM, Fault::LoseRequest(Seen::Error))
    );
    scene.faults.replan(Plan::nothing());
    assert!(scene.send(Method::PUT, ITEM, "x").await.is_ok());
    assert_eq!((scene.faults.requests(), scene.faults.log().len()), (4, 3));
}
