//! Bodies: reading those of requests within bounds, and the one type of all answers.
//!
//! Holds: a body that is too large is read to its end as far as is reasonable, so that the client gets its answer rather
//! than a broken connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use super::protobuf;
use crate::access::limits::Pass;
use crate::refusal::Refusal;

/// Largest body of a request, as on a cluster.
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How much more is read and thrown away of one that is larger.
const DRAIN_LIMIT: usize = 64 * 1024 * 1024;

/// The body of an answer: some bytes, or the lines of a watch.
pub struct ApiBody {
    content: http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>,
    /// The place of the request among those under way, until the answer was taken or let go.
    pass: Pass,
}

impl ApiBody {
    pub(crate) fn whole(bytes: Vec<u8>) -> ApiBody {
        ApiBody { content: Full::new(Bytes::from(bytes)).boxed_unsync(), pass: Pass::Free }
    }

    pub(crate) fn lines(lines: impl Stream<Item = Bytes> + Send + 'static) -> ApiBody {
        use futures::StreamExt as _;
        ApiBody { content: StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync(), pass: Pass::Free }
    }

    pub(crate) fn holding(self, pass: Pass) -> ApiBody {
        ApiBody { pass, ..self }
    }
}

impl std::fmt::Debug for ApiBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiBody").field("pass", &self.pass).finish_non_exhaustive()
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.content).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.content.size_hint()
    }
}

/// Reads the body of a request.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut collected = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Refusal::BadRequest(format!("the body of the request broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len());
        if length <= BODY_LIMIT {
            collected.extend_from_slice(&data);
        } else if length > DRAIN_LIMIT {
            break;
        }
    }
    if length > BODY_LIMIT { Err(Refusal::TooLarge { limit: BODY_LIMIT }) } else { Ok(collected.freeze()) }
}

/// What a client may send as an object.
const OBJECT_TYPES: &str = "application/json, application/yaml";

/// Parses an object of a built-in kind, which some clients send as protobuf only.
pub(crate) fn built_in_object(content_type: &str, body: &[u8]) -> Result<Value, Refusal> {
    if content_type == protobuf::TYPE { protobuf::object(body) } else { object(content_type, body) }
}

/// Parses an object from the body.
pub(crate) fn object(content_type: &str, body: &[u8]) -> Result<Value, Refusal> {
    match content_type {
        "application/json" | "" => serde_json::from_slice(body)
            .map_err(|error| Refusal::BadRequest(format!("the object provided is unrecognized: {error}"))),
        "application/yaml" => serde_yaml_ng::from_slice(body)
            .map_err(|error| Refusal::BadRequest(format!("error converting YAML to JSON: {error}"))),
        _other => Err(Refusal::UnsupportedMediaType(OBJECT_TYPES)),
    }
}
