//! HTTP to object stores: hyper over rustls, with a limit of connections, limits of bandwidth, and an end for requests in which
//! nothing moves any more.
//!
//! A request holds its permit until its answer was read to the end, so no more connections than allowed are ever open.

use super::RemoteOptions;
use super::fault::{self, Answer};
use super::pace::Pace;
use super::token::Tokens;
use crate::storage::CauseKind;
use ::http::{Method, StatusCode, header};
use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a connection is kept that nobody uses.
const KEEP: Duration = Duration::from_secs(20);
/// No more is read of an answer that refuses.
const LONGEST_REFUSAL: usize = 64 << 10;
/// Bodies are sent in pieces of so many bytes.
const PIECE: usize = 64 << 10;

/// What went wrong between here and a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// The server refuses, in this crate's words.
    #[error("{text}")]
    Refused {
        /// Which refusal it is.
        kind: CauseKind,
        /// In words.
        text: String,
    },
    /// The server's certificate is not accepted.
    #[error("the server's certificate is not accepted: {0}")]
    Certificate(String),
    /// What answers does not speak TLS.
    #[error("what answers does not speak TLS: {0}")]
    NoTls(String),
    /// What answers speaks TLS, and was asked without.
    #[error("what answers speaks TLS; write its endpoint with https://")]
    WithTls,
    /// There is no connection.
    #[error("no connection to the server: {0}")]
    Unreachable(String),
    /// The connection broke in the middle of a request or of its answer.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing moved any more.
    #[error("the server did not go on for {0} s")]
    Stalled(u64),
}

/// A connection to an object store.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: Client<HttpsConnector<TcpConnector>, Upload>,
    permits: Arc<Semaphore>,
    upload: Option<Arc<Pace>>,
    download: Option<Arc<Pace>>,
    stall: Duration,
    /// Who makes new tokens, where requests carry one that expires.
    tokens: Option<Arc<Tokens>>,
    /// Whether the server has ever answered.
    has_answered: Arc<AtomicBool>,
}

impl Transport {
    /// Prepares connections; none is made. The error says what is wrong with the certificates.
    pub(super) fn new(options: &RemoteOptions, with_tls: bool) -> Result<Self, String> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let tls = if with_tls { super::tls::config(options)? } else { super::tls::none()? };
        let https = HttpsConnectorBuilder::new().with_tls_config(tls);
        let https = if with_tls { https.https_only() } else { https.https_or_http() };
        let connections = options.max_connections.get().min(Semaphore::MAX_PERMITS);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(KEEP)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(connections)
            .build(https.enable_http1().wrap_connector(tcp));
        Ok(Self {
            client,
            permits: Arc::new(Semaphore::new(connections)),
            upload: options.upload_rate.map(|rate| Arc::new(Pace::new(rate))),
            download: options.download_rate.map(|rate| Arc::new(Pace::new(rate))),
            stall: options.stall,
            tokens: None,
            has_answered: Arc::default(),
        })
    }

    /// The same connections, for requests that carry tokens.
    pub(super) fn with_tokens(self, tokens: Arc<Tokens>) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// A server that never answered, and is asked without TLS, may speak TLS: many end such a connection without a word.
    async fn understand(&self, asked: &::http::Uri, err: HttpError) -> HttpError {
        let is_broken = err.source().and_then(|err| err.downcast_ref::<TransportError>());
        let is_broken = matches!(is_broken, Some(TransportError::Broken(_)));
        if is_broken && !self.has_answered.load(Ordering::Relaxed) && super::tls::is_spoken_by(asked).await {
            return HttpError::new(HttpErrorKind::Unknown, TransportError::WithTls);
        }
        err
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|err| HttpError::new(HttpErrorKind::Unknown, err))?;
        let watch = Arc::new(Watch::new());
        let asked = request.uri().clone();
        let bearer = request.headers().get(header::AUTHORIZATION).cloned();
        // All other requests are about the bucket, or need it.
        let is_of_file = request.method() != Method::PUT && asked.query().is_none();
        let upload = |body| Upload {
            body,
            piece: Bytes::new(),
            pace: self.upload.clone(),
            pause: None,
            watch: Arc::clone(&watch),
        };
        let answered = tokio::select! {
            answered = self.client.request(request.map(upload)) => answered.map_err(|err| classify(&err)),
            () = watch.stalled(self.stall) => Err(stalled(self.stall)),
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(err) => return Err(self.understand(&asked, err).await),
        };
        self.has_answered.store(true, Ordering::Relaxed);
        if let (Some(tokens), Some(bearer)) = (&self.tokens, bearer) {
            tokens.answered(&bearer, answered.status())?;
        }
        let answer = answered.map(|body| {
            let timer = Box::pin(sleep_until(Instant::now() + self.stall));
            Download { body, pace: self.download.clone(), early: None, stall: self.stall, timer, _permit: permit }
        });
        admit(answer, is_of_file).await
    }
}

/// Passes answers on that object_store tells apart itself; the others become errors in this crate's words, so that a
/// server's own text goes no further.
async fn admit(answer: ::http::Response<Download>, is_of_file: bool) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED || status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(answer.map(HttpResponseBody::new));
    }
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST_REFUSAL).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let Answer { kind, text } = fault::refusal(status.as_u16(), &String::from_utf8_lossy(&body));
    if kind == CauseKind::Missing && !is_of_file {
        let text = "there is no such bucket, or no such account".to_owned();
        return Err(HttpError::new(HttpErrorKind::Unknown, TransportError::Refused { kind: CauseKind::Bucket, text }));
    }
    let is_told_apart = matches!(kind, CauseKind::Missing | CauseKind::Exists);
    if is_told_apart && (status == StatusCode::NOT_FOUND || status == StatusCode::PRECONDITION_FAILED) {
        return Ok(HttpResponse::from_parts(parts, Bytes::new().into()));
    }
    let retry = if fault::may_pass(kind) { HttpErrorKind::Request } else { HttpErrorKind::Unknown };
    Err(HttpError::new(retry, TransportError::Refused { kind, text }))
}

fn stalled(stall: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, TransportError::Stalled(stall.as_secs()))
}

/// When something moved last in a request.
#[derive(Debug)]
struct Watch(Mutex<Instant>);

impl Watch {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn moved(&self, at: Instant) {
        *crate::backend::lock(&self.0) = at;
    }

    /// Answers when nothing has moved for `stall`.
    async fn stalled(&self, stall: Duration) {
        loop {
            let end = *crate::backend::lock(&self.0) + stall;
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A request's body, in pieces, each at its time.
struct Upload {
    body: HttpRequestBody,
    piece: Bytes,
    pace: Option<Arc<Pace>>,
    pause: Option<Pin<Box<Sleep>>>,
    watch: Arc<Watch>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.pause = None;
        }
        while this.piece.is_empty() {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(err))) => return Poll::Ready(Some(Err(err))),
                Poll::Ready(Some(Ok(frame))) => this.piece = frame.into_data().unwrap_or_default(),
            }
        }
        let piece = this.piece.split_to(this.piece.len().min(PIECE));
        let now = Instant::now();
        let next = this.pace.as_ref().map_or(now, |pace| pace.take(piece.len(), now));
        if next > now {
            this.pause = Some(Box::pin(sleep_until(next)));
        }
        // A pause that is meant is no stall.
        this.watch.moved(next);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint().exact().unwrap_or_default();
        SizeHint::with_exact(self.piece.len() as u64 + rest)
    }
}

/// An answer's body, which ends with an error when nothing comes any more. What came before its time is held back, so that
/// answers of one piece keep to the limit too; more of it than that is not read meanwhile.
struct Download {
    body: Incoming,
    pace: Option<Arc<Pace>>,
    early: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Download {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if this.early.is_none() {
            let frame = match ready!(this.receive(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(err)) => return Poll::Ready(Some(Err(err))),
                None => return Poll::Ready(None),
            };
            match this.time_of(&frame) {
                Some(time) => this.early = Some((frame, Box::pin(sleep_until(time)))),
                None => return Poll::Ready(Some(Ok(frame))),
            }
        }
        if this.early.as_mut().is_some_and(|(_, time)| time.as_mut().poll(context).is_pending()) {
            return Poll::Pending;
        }
        // A pause that is meant is no stall.
        this.timer.as_mut().reset(Instant::now() + this.stall);
        Poll::Ready(this.early.take().map(|(frame, _)| Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.early.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let early = self.early.as_ref().and_then(|(frame, _)| frame.data_ref()).map_or(0, |data| data.len() as u64);
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + early);
        }
        hint.set_lower(hint.lower() + early);
        hint
    }
}

impl Download {
    /// When a frame may be passed on, where that is later than now.
    fn time_of(&self, frame: &Frame<Bytes>) -> Option<Instant> {
        let (pace, data) = (self.pace.as_ref()?, frame.data_ref()?);
        let now = Instant::now();
        Some(pace.take(data.len(), now)).filter(|time| *time > now)
    }

    /// The next frame as it comes.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.timer.as_mut().reset(Instant::now() + self.stall);
                Poll::Ready(frame.map(|frame| frame.map_err(|err| classify(&err))))
            }
            Poll::Pending => match self.timer.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(stalled(self.stall)))),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

/// Finds what happened at the bottom of hyper's errors. Only a connection that was never made is one over which nothing can
/// have been done.
fn classify(err: &(dyn Error + 'static)) -> HttpError {
    let is_connect = err.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|err| err.is_connect());
    let (tls, last) = bottom(err);
    match tls {
        Some(rustls::Error::InvalidMessage(what)) => {
            HttpError::new(HttpErrorKind::Unknown, TransportError::NoTls(format!("{what:?}")))
        }
        Some(err) if is_connect && is_about_certificates(err) => {
            HttpError::new(HttpErrorKind::Unknown, TransportError::Certificate(super::tls::refused(err)))
        }
        Some(_) | None if is_connect => HttpError::new(HttpErrorKind::Connect, TransportError::Unreachable(last)),
        Some(_) | None => HttpError::new(HttpErrorKind::Interrupted, TransportError::Broken(last)),
    }
}

fn is_about_certificates(err: &rustls::Error) -> bool {
    matches!(err, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
}

/// The error of TLS in a chain, if there is one, and the chain's last word. An [`io::Error`] hides what it wraps from
/// `source`.
pub(super) fn bottom<'a>(err: &'a (dyn Error + 'static)) -> (Option<&'a rustls::Error>, String) {
    let mut last = err;
    loop {
        if let Some(tls) = last.downcast_ref::<rustls::Error>() {
            return (Some(tls), tls.to_string());
        }
        let wrapped = last.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let below = wrapped.map(|err| err as &(dyn Error + 'static)).or_else(|| last.source());
        match below {
            Some(below) => last = below,
            None => return (None, last.to_string()),
        }
    }
}
