//! The layer, the service it makes, and the log.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tower::{BoxError, Layer, Service, ServiceExt as _};

use crate::answer;
use crate::asked::Asked;
use crate::fault::{Fault, Seen};
use crate::plan::Plan;
use crate::streams::{self, Frames};

/// How many answers to one list are kept for [`Fault::StaleList`].
const KEPT: usize = 8;

/// The body of an answer that went through the layer.
pub type FaultyBody = UnsyncBoxBody<Bytes, BoxError>;

/// What a client sees of a request or an answer that got lost. It cannot tell which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub(crate) what: &'static str,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (an injected fault)", self.what)
    }
}

impl std::error::Error for Lost {}

/// A request that met a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number of the request, from 0.
    pub request: u64,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// What went wrong.
    pub fault: Fault,
}

/// Answers that were given to one list, the oldest first.
type Past = VecDeque<(http::response::Parts, Bytes)>;

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    requests: u64,
    log: Vec<Record>,
    past: HashMap<String, Past>,
}

/// The layer, and the handle to it. Cheap to clone; all clones count, plan and log together.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// A layer with that plan.
    #[must_use]
    pub fn new(plan: Plan) -> Faults {
        let state = State { plan, ..State::default() };
        Faults { state: Arc::new(Mutex::new(state)) }
    }

    /// Goes on with another plan; counting goes on. [`Plan::nothing`] ends all trouble but that of requests under way.
    pub fn replan(&self, plan: Plan) {
        self.lock().plan = plan;
    }

    /// How many requests were made so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Every fault so far, in the order of the requests.
    #[must_use]
    pub fn log(&self) -> Vec<Record> {
        self.lock().log.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; what is there is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request and decides what happens to it.
    fn meet(&self, method: &Method, target: &str, asked: &Asked) -> Option<Fault> {
        let mut state = self.lock();
        let request = state.requests;
        state.requests += 1;
        let fault = state.plan.fault(request, asked)?;
        state.log.push(Record { request, method: method.clone(), target: target.to_owned(), fault });
        Some(fault)
    }

    fn remembers(&self) -> bool {
        self.lock().plan.remembers()
    }

    fn remember(&self, target: &str, head: &http::response::Parts, body: &Bytes) {
        let mut state = self.lock();
        let past = state.past.entry(target.to_owned()).or_default();
        past.push_back((head.clone(), body.clone()));
        if past.len() > KEPT {
            past.pop_front();
        }
    }

    fn recall(&self, target: &str) -> Option<Response<FaultyBody>> {
        let (head, body) = self.lock().past.get(target)?.front()?.clone();
        Some(Response::from_parts(head, whole(body)))
    }
}

impl<S> Layer<S> for Faults {
    type Service = FaultyService<S>;

    fn layer(&self, inner: S) -> FaultyService<S> {
        FaultyService { faults: self.clone(), inner }
    }
}

/// A service behind a [`Faults`] layer.
#[derive(Debug, Clone)]
pub struct FaultyService<S> {
    faults: Faults,
    inner: S,
}

impl<S, B, A> Service<Request<B>> for FaultyService<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<A>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
{
    type Response = Response<FaultyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<FaultyBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asked = Asked::of(request.method(), request.uri());
        let target = request.uri().to_string();
        // Counted here and not in the future: the order of the calls is the order of the plan.
        let fault = self.faults.meet(request.method(), &target, &asked);
        let call = Call { faults: self.faults.clone(), inner: self.inner.clone(), asked, target };
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            call.run(fault, Request::from_parts(head, Full::new(body))).await
        })
    }
}

/// One request on its way.
struct Call<S> {
    faults: Faults,
    inner: S,
    asked: Asked,
    target: String,
}

impl<S, A> Call<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<A>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    A: Body<Data = Bytes> + Send + 'static,
    A::Error: Into<BoxError>,
{
    async fn run(self, fault: Option<Fault>, request: Request<Full<Bytes>>) -> Result<Response<FaultyBody>, BoxError> {
        let Some(fault) = fault else {
            return self.send(request).await;
        };
        match fault {
            Fault::LoseRequest(seen) => lost(seen, "the request got lost").await,
            Fault::LoseAnswer(seen) => {
                drop(self.send(request).await?);
                lost(seen, "the answer got lost").await
            }
            Fault::Delay(by) => {
                tokio::time::sleep(by).await;
                self.send(request).await
            }
            Fault::DelayAnswer(by) => {
                let response = self.send(request).await;
                tokio::time::sleep(by).await;
                response
            }
            Fault::Duplicate => {
                drop(self.send(request.clone()).await?);
                self.send(request).await
            }
            Fault::Refuse(refusal) => Ok(answer::refused(refusal).map(whole)),
            Fault::FailAnswer(refusal) => {
                drop(self.send(request).await?);
                Ok(answer::refused(refusal).map(whole))
            }
            Fault::CutWatch { after, how } => {
                Ok(streamed(self.send(request).await?, |frames| streams::cut(frames, after, how)))
            }
            Fault::StaleWatch(by) => Ok(streamed(self.send(request).await?, |frames| streams::late(frames, by))),
            Fault::StaleList => match self.faults.recall(&self.target) {
                Some(old) => Ok(old),
                None => self.send(request).await,
            },
            Fault::ExpireWatch => Ok(answer::expired().map(whole)),
        }
    }

    /// Sends the request on; the future holds nothing of the call, whose service need not be shared between threads.
    fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Result<Response<FaultyBody>, BoxError>> + Send + use<S, A> {
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        let (target, is_list) = (self.target.clone(), self.asked.is_list);
        async move {
            let response = inner.oneshot(request).await.map_err(Into::into)?;
            let response = response.map(|body| body.map_err(Into::into).boxed_unsync());
            if !is_list || response.status() != StatusCode::OK || !faults.remembers() {
                return Ok(response);
            }
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            faults.remember(&target, &head, &body);
            Ok(Response::from_parts(head, whole(body)))
        }
    }
}

async fn lost(seen: Seen, what: &'static str) -> Result<Response<FaultyBody>, BoxError> {
    match seen {
        Seen::Error => Err(BoxError::from(Lost { what })),
        Seen::Never => std::future::pending().await,
    }
}

fn whole(body: Bytes) -> FaultyBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// The answer with its body as a stream that was changed. An answer that is no stream of events, a refusal, stays.
fn streamed(response: Response<FaultyBody>, change: impl FnOnce(Frames) -> Frames) -> Response<FaultyBody> {
    if response.status() != StatusCode::OK {
        return response;
    }
    response.map(|body| {
        let frames = change(body.into_data_stream().boxed());
        StreamBody::new(frames.map(|frame| frame.map(Frame::data))).boxed_unsync()
    })
}
