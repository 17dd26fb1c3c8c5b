//! Plain HTTP through a client that knows the server's address and how to show who it is.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// Nothing that a server answers at once takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to a server.
#[derive(Clone)]
pub(crate) struct Http(Client);

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) content_type: String,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// Asserts the code, with the body in the message.
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }

    /// Asserts a refusal by code and reason.
    pub(crate) fn refused(self, code: u16, reason: &str) -> Value {
        assert_eq!((self.code, self.body["reason"].as_str()), (code, Some(reason)), "{}", self.body);
        assert_eq!((&self.body["kind"], &self.body["status"]), (&"Status".into(), &"Failure".into()), "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        self.body
    }

    /// Asserts a 422 with a cause of that reason at that field.
    pub(crate) fn invalid(self, reason: &str, field: &str) -> Value {
        let body = self.refused(422, "Invalid");
        let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let found = causes.iter().any(|cause| cause["reason"] == reason && cause["field"] == field);
        assert!(found, "no cause {reason} at {field}: {body}");
        body
    }
}

impl Http {
    pub(crate) fn new(client: Client) -> Http {
        Http(client)
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let asked = format!("{method} {path}");
        let answered = tokio::time::timeout(PATIENCE, self.answer(method, path, headers, body)).await;
        answered.unwrap_or_else(|_| panic!("{asked} was not answered within {PATIENCE:?}"))
    }

    async fn answer(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let response = self.0.send(request).await.expect("an answer");
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let warnings = response.headers().get_all("warning").iter().map(text).collect();
        let content_type = response.headers().get("content-type").map(text).unwrap_or_default();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes)));
        Answer { code, body, content_type, warnings }
    }

    /// Starts a watch; the path has `watch=true` in it.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = tokio::time::timeout(PATIENCE, self.0.send(request)).await.expect("in time").expect("an answer");
        let code = response.status().as_u16();
        let frames = response.into_body().into_data_stream();
        let frames = frames.map(|frame| frame.expect("the stream goes on")).boxed();
        let mut watch = Watch { frames, left: Vec::new() };
        if code != 200 {
            let refusal = watch.line().await;
            panic!("{path}: {code} {refusal:?}");
        }
        watch
    }

    async fn with_body(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Answer {
        self.send(method, path, &[("content-type", content_type)], body.to_string().into_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::POST, path, "application/json", body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::PUT, path, "application/json", body).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::PATCH, path, "application/merge-patch+json", body).await
    }

    pub(crate) async fn json_patch(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::PATCH, path, "application/json-patch+json", body).await
    }

    pub(crate) async fn strategic(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::PATCH, path, "application/strategic-merge-patch+json", body).await
    }

    /// Server-side apply by that manager; more of the query may follow the name (`me&force=true`).
    pub(crate) async fn apply(&self, path: &str, manager: &str, body: &Value) -> Answer {
        let path = format!("{path}?fieldManager={manager}");
        self.with_body(Method::PATCH, &path, "application/apply-patch+yaml", body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Vec::new()).await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.with_body(Method::DELETE, path, "application/json", options).await
    }
}

/// A watch in progress.
pub(crate) struct Watch {
    frames: BoxStream<'static, Bytes>,
    left: Vec<u8>,
}

impl Watch {
    /// The next line, or none at the end of the stream.
    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.left.iter().position(|byte| *byte == b'\n') {
                let rest = self.left.split_off(end + 1);
                return Some(std::mem::replace(&mut self.left, rest));
            }
            match self.frames.next().await {
                Some(frame) => self.left.extend_from_slice(&frame),
                None if self.left.is_empty() => return None,
                None => return Some(std::mem::take(&mut self.left)),
            }
        }
    }

    /// The next event, or none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.line()).await.expect("an event in time")?;
        Some(serde_json::from_slice(&line).expect("an event in JSON"))
    }

    /// The next event that is no bookmark.
    pub(crate) async fn change(&mut self) -> Value {
        loop {
            let event = self.next().await.expect("the watch goes on");
            if event["type"] != "BOOKMARK" {
                return event;
            }
        }
    }

    /// Asserts the type and the name of the next change; answers its object.
    pub(crate) async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.change().await;
        let found = (event["type"].as_str(), event["object"]["metadata"]["name"].as_str());
        assert_eq!(found, (Some(kind), Some(name)), "{event}");
        event["object"].clone()
    }
}

/// The names of a list, in its order.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

/// The resource version of an object or a list.
pub(crate) fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a resource version")
}
