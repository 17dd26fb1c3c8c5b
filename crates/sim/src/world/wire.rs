//! The way to the API: every request is a point, every write is shown to the laws, every watch event can be dropped,
//! delayed, doubled or followed by a cut.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use lvault_apiserver::ApiServer;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::points::{Fault, Life};
use super::{Inner, NODE, Shared};
use crate::mutation::Planted;

/// How long a lost answer is waited for: the clients' own limit.
const PATIENCE: Duration = Duration::from_secs(20);
/// What every request takes at least.
const LATENCY: Duration = Duration::from_millis(1);
/// How long an event comes late.
const LATE: Duration = Duration::from_secs(30);
/// How long after a dropped event the watch is cut, so that its reader lists anew.
const UNSEEN: Duration = Duration::from_secs(300);

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = UnsyncBoxBody<Bytes, Failure>;

/// What happens to watch events and lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staleness {
    /// The event is never delivered; the watch goes on for five minutes and then ends with 410.
    Dropped,
    /// It comes half a minute late, and those after it too.
    Late,
    /// It comes twice.
    Twice,
    /// The watch ends with 410 in its place.
    Cut,
}

/// Every kind of staleness that an event can meet.
pub const STALE: [Staleness; 4] = [Staleness::Dropped, Staleness::Late, Staleness::Twice, Staleness::Cut];

/// The watch events so far, and what meets them.
#[derive(Debug, Default)]
pub struct Events {
    /// How many were delivered or withheld.
    pub count: u64,
    /// What meets which event.
    pub at: BTreeMap<u64, Staleness>,
    /// The first answer to each list.
    pub lists: BTreeMap<String, Bytes>,
    /// Lists are answered as they were answered first.
    pub old_lists: bool,
}

/// A client whose requests are this life's.
pub fn client(server: &ApiServer, shared: &Arc<Shared>, life: Arc<Life>) -> Client {
    let (server, shared) = (server.clone(), Arc::clone(shared));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (server, shared, life) = (server.clone(), Arc::clone(&shared), Arc::clone(&life));
        async move { call(server, shared, life, request).await }
    });
    Client::new(service, "default")
}

/// A client of users and tests: no point, no fault, but the laws see what it writes.
pub fn plain_client(server: &ApiServer, shared: &Arc<Shared>) -> Client {
    let (server, shared) = (server.clone(), Arc::clone(shared));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (server, shared) = (server.clone(), Arc::clone(&shared));
        async move {
            tokio::time::sleep(LATENCY).await;
            carry_out(&server, &shared, "user", request).await
        }
    });
    Client::new(service, "default")
}

async fn call(
    server: ApiServer,
    shared: Arc<Shared>,
    life: Arc<Life>,
    request: Request<Body>,
) -> Result<Response<Answer>, Failure> {
    life.moving().await;
    let latency = LATENCY + shared.with(Inner::latency);
    tokio::time::sleep(latency).await;
    life.moving().await;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let what = format!("{method} {path}{}", if is_watch { " (watch)" } else { "" });
    let fault = shared.with(|inner| {
        inner.count_request(&life.name);
        inner.points.pass(&life.name, &what)
    });
    let lost = |kind: io::ErrorKind| -> Failure { Box::new(io::Error::from(kind)) };
    match fault {
        Some(Fault::CrashBefore) => {
            life.end();
            life.moving().await;
        }
        Some(Fault::Refused) => return Err(lost(io::ErrorKind::ConnectionRefused)),
        Some(Fault::Conflict) if method != Method::GET => return Ok(refusal(StatusCode::CONFLICT)),
        Some(Fault::Conflict) => return Err(lost(io::ErrorKind::ConnectionRefused)),
        Some(Fault::Stops) if life.name.starts_with("executor") => {
            shared.stop(&life);
            life.moving().await;
        }
        Some(Fault::Stops) => return Err(lost(io::ErrorKind::ConnectionRefused)),
        Some(Fault::CrashAfter | Fault::DoneButError | Fault::AnswerLost) | None => {}
    }
    let answer = carry_out(&server, &shared, &life.name, request).await?;
    match fault {
        Some(Fault::CrashAfter) => {
            life.end();
            life.moving().await;
        }
        Some(Fault::DoneButError) => return Err(lost(io::ErrorKind::ConnectionReset)),
        Some(Fault::AnswerLost) => {
            tokio::time::sleep(PATIENCE).await;
            return Err(lost(io::ErrorKind::TimedOut));
        }
        Some(Fault::CrashBefore | Fault::Refused | Fault::Conflict | Fault::Stops) | None => {}
    }
    life.moving().await;
    if is_watch {
        return Ok(answer.map(|body| watched(body, shared)));
    }
    if method == Method::GET && is_collection(&path) {
        return old_list(answer, &shared, path).await;
    }
    Ok(answer)
}

async fn carry_out(
    server: &ApiServer,
    shared: &Arc<Shared>,
    actor: &str,
    request: Request<Body>,
) -> Result<Response<Answer>, Failure> {
    let is_write = request.method() != Method::GET;
    let is_volume = request.uri().path().contains("/logicalvolumes");
    let planted = shared.with(|inner| inner.planted);
    let request = match planted {
        Some(Planted::FinalizerSwallowed | Planted::PhaseBack | Planted::FailureReports) if is_write && is_volume => {
            match mutated(request, actor, planted).await? {
                Ok(request) => request,
                Err(object) => return Ok(Response::new(boxed(Full::new(Bytes::from(object.to_string()))))),
            }
        }
        Some(_) | None => request,
    };
    let answer = server.service().oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
    let answer = answer.map(boxed);
    if !is_write || !is_volume || !answer.status().is_success() {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await?.to_bytes();
    if let Ok(object) = serde_json::from_slice::<Value>(&bytes) {
        shared.with(|inner: &mut Inner| inner.written(actor, &object));
    }
    Ok(Response::from_parts(head, boxed(Full::new(bytes))))
}

/// What a planted defect makes of a write: another one, or an answer without one.
async fn mutated(
    request: Request<Body>,
    actor: &str,
    planted: Option<Planted>,
) -> Result<Result<Request<Body>, Value>, Failure> {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let mut patch: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let adds = patch.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    if planted == Some(Planted::FinalizerSwallowed) && adds {
        let name = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let mut answer = patch.clone();
        answer["metadata"]["name"] = json!(name);
        answer["spec"] = json!({"name": name, "nodeName": NODE, "size": "10Mi"});
        return Ok(Err(answer));
    }
    let failed = patch.pointer("/status/onlineSnapshot/phase") == Some(&json!("Failed"));
    if planted == Some(Planted::FailureReports) && failed {
        patch["status"]["onlineSnapshot"]["snapshotID"] = json!("0123456789abcdef");
    }
    let of_agent = actor.starts_with("agent") && patch.get("status").is_some();
    if planted == Some(Planted::PhaseBack) && of_agent {
        patch["status"]["onlineSnapshot"]["phase"] = json!("Pending");
    }
    let bytes = if patch.is_null() { bytes } else { Bytes::from(patch.to_string()) };
    Ok(Ok(Request::from_parts(head, Body::from(bytes.to_vec()))))
}

fn boxed<B>(body: B) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failure>,
{
    UnsyncBoxBody::new(body.map_err(Into::into))
}

fn refusal(code: StatusCode) -> Response<Answer> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict",
                        "message": "injected", "code": code.as_u16()});
    let mut answer = Response::new(boxed(Full::new(Bytes::from(status.to_string()))));
    *answer.status_mut() = code;
    answer
}

fn is_collection(path: &str) -> bool {
    path.ends_with("/logicalvolumes") || path.ends_with("/snapshotbackupstorages")
}

/// Notes the first answer of each list, and gives it again where old lists are asked for.
async fn old_list(answer: Response<Answer>, shared: &Arc<Shared>, path: String) -> Result<Response<Answer>, Failure> {
    if !answer.status().is_success() {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let bytes = shared.with(|inner| {
        let events = &mut inner.events;
        let first = events.lists.entry(path).or_insert_with(|| bytes.clone()).clone();
        if events.old_lists { first } else { bytes }
    });
    Ok(Response::from_parts(head, boxed(Full::new(bytes))))
}

struct Reading {
    body: Answer,
    rest: Vec<u8>,
    shared: Arc<Shared>,
    /// Events to be delivered before anything is read.
    ready: Vec<Bytes>,
    cut: bool,
    /// When a watch that has dropped an event ends.
    deadline: Option<tokio::time::Instant>,
}

/// A watch's body, event by event.
fn watched(body: Answer, shared: Arc<Shared>) -> Answer {
    let reading = Reading { body, rest: Vec::new(), shared, ready: Vec::new(), cut: false, deadline: None };
    boxed(StreamBody::new(Box::pin(events(reading))))
}

fn events(reading: Reading) -> impl Stream<Item = Result<Frame<Bytes>, Failure>> + Send {
    stream::unfold(reading, |mut reading| async move {
        loop {
            if let Some(event) = reading.ready.pop() {
                return Some((Ok(Frame::data(event)), reading));
            }
            if reading.cut {
                return None;
            }
            let Some(line) = next_line(&mut reading).await else {
                reading.cut = true;
                if reading.deadline.is_some() {
                    reading.ready.push(expired());
                }
                continue;
            };
            let meets = reading.shared.with(|inner| {
                let number = inner.events.count;
                inner.events.count += 1;
                let meets = inner.events.at.get(&number).copied();
                if let Some(meets) = meets {
                    inner.points.note(&format!("watch event {number} is {meets:?}"));
                }
                meets
            });
            match meets {
                None => reading.ready.push(line),
                Some(Staleness::Dropped) => reading.deadline = Some(tokio::time::Instant::now() + UNSEEN),
                Some(Staleness::Late) => {
                    tokio::time::sleep(LATE).await;
                    reading.ready.push(line);
                }
                Some(Staleness::Twice) => reading.ready = vec![line.clone(), line],
                Some(Staleness::Cut) => {
                    reading.cut = true;
                    reading.ready.push(expired());
                }
            }
        }
    })
}

/// The next event, or `None` when the watch ends or has to.
async fn next_line(reading: &mut Reading) -> Option<Bytes> {
    loop {
        if let Some(end) = reading.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = reading.rest.drain(..=end).collect();
            return Some(Bytes::from(line));
        }
        let deadline = reading.deadline;
        let ends = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            biased;
            frame = reading.body.frame() => frame?.ok()?,
            () = ends => return None,
        };
        reading.rest.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
}

fn expired() -> Bytes {
    let event = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": "too old resource version", "reason": "Expired", "code": 410}});
    Bytes::from(format!("{event}\n"))
}

/// Reads a stream to its end, for tests of this module.
#[cfg(test)]
async fn lines(body: Answer) -> String {
    let mut body = body;
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    }
    text
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_staleness_does_what_it_says() {
        let source = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";
        for (staleness, wanted) in [
            (None, source.to_owned()),
            (Some(Staleness::Twice), "{\"a\":1}\n{\"b\":2}\n{\"b\":2}\n{\"c\":3}\n".to_owned()),
            (Some(Staleness::Late), source.to_owned()),
            (Some(Staleness::Cut), format!("{{\"a\":1}}\n{}", String::from_utf8_lossy(&expired()))),
            (Some(Staleness::Dropped), format!("{{\"a\":1}}\n{{\"c\":3}}\n{}", String::from_utf8_lossy(&expired()))),
        ] {
            let shared = Shared::new();
            shared.with(|inner| inner.events.at.extend(staleness.map(|staleness| (1, staleness))));
            let endless =
                stream::iter([Ok::<_, Failure>(Frame::data(Bytes::from(source)))]).chain(stream::once(async {
                    tokio::time::sleep(Duration::from_secs(1000)).await;
                    Ok(Frame::data(Bytes::new()))
                }));
            let began = tokio::time::Instant::now();
            let text = lines(watched(boxed(StreamBody::new(Box::pin(endless))), shared)).await;
            assert_eq!(text, wanted, "{staleness:?}");
            let took = began.elapsed();
            match staleness {
                Some(Staleness::Late) => assert!(took >= LATE + Duration::from_secs(1000)),
                Some(Staleness::Dropped) => assert_eq!(took, UNSEEN),
                Some(Staleness::Cut) => assert!(took < LATE),
                Some(Staleness::Twice) | None => assert!(took >= Duration::from_secs(1000)),
            }
        }
    }
}
