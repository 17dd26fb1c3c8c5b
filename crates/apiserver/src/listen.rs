//! The listener: TLS on a loopback port, for clients outside of this process.
//!
//! Holds: nothing about objects is said to a client that has not shown who it is; a slow or silent client costs one connection and
//! no more.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use crate::access::authentication;
use crate::clients::Shown;
use crate::http::body::ApiBody;
use crate::http::refused;
use crate::http::service::ApiService;
use crate::refusal::Refusal;
use crate::server::{ApiServer, Server};
use crate::tls::Identity;

/// Most connections at a time; further ones wait.
const CONNECTIONS: usize = 512;
/// How long a client may take for the TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take for the body of a request.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// How long connections get to finish what they are doing when the listener ends.
const GRACE: Duration = Duration::from_secs(1);
/// After a failed accept (too many open files), so that the failure is not repeated without end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is one that others can reach.
    #[error("{address} can be reached from other machines; listen on 127.0.0.1 or [::1]")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The listener has no address.
    #[error("cannot ask the listener for its address")]
    Address(#[source] std::io::Error),
}

impl ApiServer {
    /// Serves connections until `shutdown` completes; then connections in progress get a second to finish. Every request
    /// but those for health and version has to come with the identity's token, a token of a ServiceAccount, or over a
    /// connection with a client certificate of the identity.
    ///
    /// # Errors
    /// See [`ServeError`]. Once it serves, it ends only by `shutdown`.
    pub async fn serve(
        &self,
        listener: TcpListener,
        identity: &Identity,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(ServeError::Address)?;
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback { address });
        }
        let guarded = Guarded {
            server: Arc::clone(&self.server),
            identity: Arc::new(identity.clone()),
            certificate: Arc::new(Shown::Nothing),
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.config));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            let place = Arc::clone(&places).acquire_owned();
            let accepted = async { (place.await, listener.accept().await) };
            let (place, accepted) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, acceptor.clone(), guarded.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        stop.send_replace(true);
        let finish = async { while connections.join_next().await.is_some() {} };
        // Watches never finish by themselves; what is left after the grace is cut.
        drop(tokio::time::timeout(GRACE, finish).await);
        Ok(())
    }
}

/// One connection, from its handshake to its end. What a client does wrong is its own matter and no error of ours.
async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    mut guarded: Guarded,
    mut stopped: watch::Receiver<bool>,
) {
    // Without this a small answer waits for the client's acknowledgement of the one before.
    drop(stream.set_nodelay(true));
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
        return;
    };
    guarded.certificate = Arc::new(guarded.identity.clients.verifier.shown(stream.get_ref().1.peer_certificates()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).max_concurrent_streams(256);
    let serving = builder.serve_connection(TokioIo::new(stream), guarded);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &*error, "a connection ended early");
    }
}

/// The service behind the question who asks.
#[derive(Clone)]
struct Guarded {
    server: Arc<Server>,
    identity: Arc<Identity>,
    /// What this connection showed.
    certificate: Arc<Shown>,
}

impl hyper::service::Service<Request<Incoming>> for Guarded {
    type Response = Response<ApiBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ApiBody>, std::convert::Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Guarded { server, identity, certificate } = self;
        let user = authentication::user(server, identity, certificate, request.headers(), request.uri().path());
        if let Some(user) = user {
            return ApiService::new(Arc::clone(server), Arc::new(user)).within(BODY_PATIENCE).call(request);
        }
        let mut response = refused(&Refusal::Unauthorized);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Box::pin(async move { Ok(response) })
    }
}
