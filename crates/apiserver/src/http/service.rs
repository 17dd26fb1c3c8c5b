//! The API as a `tower::Service`, for a client in the same process and for connections alike.
//!
//! Holds: the service is always ready and never fails; whoever holds it acts as the owner.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::body::{self, ApiBody};
use super::query::Query;
use super::{Asked, answer, refused};
use crate::server::Server;

/// The API. Cheap to clone. Takes any request body; who calls it has every right.
#[derive(Debug, Clone)]
pub struct ApiService {
    server: Arc<Server>,
}

impl ApiService {
    pub(crate) fn new(server: Arc<Server>) -> ApiService {
        ApiService { server }
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ApiBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = Arc::clone(&self.server);
        Box::pin(async move {
            let (head, request_body) = request.into_parts();
            let body = match body::read(request_body).await {
                Ok(body) => body,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            let asked = Asked {
                query: Query::parse(head.uri.query().unwrap_or_default()),
                path: String::from(head.uri.path()),
                method: head.method,
                headers: head.headers,
                body,
            };
            Ok(answer(&server, asked).await)
        })
    }
}
