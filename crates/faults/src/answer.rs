//! Answers that no server gave.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::fault::Refusal;

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

fn response(code: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The refusal as Kubernetes words it.
pub(crate) fn refused(refusal: Refusal) -> Response<Bytes> {
    let (code, reason, message) = match refusal {
        Refusal::Conflict => (
            StatusCode::CONFLICT,
            "Conflict",
            "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version \
             and try again",
        ),
        Refusal::TooManyRequests { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "Too many requests, please try again later.")
        }
        Refusal::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "Internal error occurred: a fault was injected")
        }
        Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "a fault was injected"),
    };
    let mut answer = status(code.as_u16(), reason, message);
    if let Refusal::TooManyRequests { retry_after } = refusal {
        answer["details"] = json!({"retryAfterSeconds": retry_after});
    }
    let mut response = response(code, Bytes::from(answer.to_string()));
    if let Refusal::TooManyRequests { retry_after } = refusal {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after));
    }
    response
}

/// A watch that is told that its version is gone.
pub(crate) fn expired() -> Response<Bytes> {
    let object = status(410, "Expired", "too old resource version: a fault was injected");
    let event = json!({"type": "ERROR", "object": object});
    response(StatusCode::OK, Bytes::from(format!("{event}\n")))
}
