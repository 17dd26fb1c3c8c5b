//! The API as a `tower::Service`, for a client in the same process and for connections alike.
//!
//! Holds: the service is always ready and never fails; whoever holds it acts as the user it was made for.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::body::{self, ApiBody};
use super::query::Query;
use super::{Asked, answer, refused};
use crate::access::admission::{self, Admitted};
use crate::access::user::User;
use crate::refusal::Refusal;
use crate::server::Server;

/// The API. Cheap to clone. Takes any request body; who calls it has the rights of the user it was made for.
#[derive(Debug, Clone)]
pub struct ApiService {
    server: Arc<Server>,
    user: Arc<User>,
    /// How long the body of a request may take; none: as long as it likes.
    patience: Option<Duration>,
}

impl ApiService {
    pub(crate) fn new(server: Arc<Server>, user: Arc<User>) -> ApiService {
        ApiService { server, user, patience: None }
    }

    /// The same for a client that may be slow.
    pub(crate) fn within(self, patience: Duration) -> ApiService {
        ApiService { patience: Some(patience), ..self }
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
        let ApiService { server, user, patience } = self.clone();
        Box::pin(async move {
            let (head, request_body) = request.into_parts();
            let query = Query::parse(head.uri.query().unwrap_or_default());
            let Admitted { caller, attributes, pass } = match admission::admit(&server, &user, &head, &query) {
                Ok(admitted) => admitted,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            let body = match read(request_body, patience).await {
                Ok(body) => body,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            let path = String::from(head.uri.path());
            let asked = Asked { query, path, method: head.method, headers: head.headers, body, caller, attributes };
            Ok(answer(&server, asked).await.map(|body| body.holding(pass)))
        })
    }
}

/// Reads the body, for as long as there is patience.
async fn read<B>(body: B, patience: Option<Duration>) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let Some(patience) = patience else {
        return body::read(body).await;
    };
    match tokio::time::timeout(patience, body::read(body)).await {
        Ok(read) => read,
        Err(_elapsed) => {
            let seconds = patience.as_secs();
            Err(Refusal::BadRequest(format!("the body of the request did not come within {seconds} s")))
        }
    }
}
