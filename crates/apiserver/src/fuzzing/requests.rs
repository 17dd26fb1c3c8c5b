//! Whole requests, against a server in memory with lvault's own kinds.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::FutureExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::Service as _;

use super::documents::is_readable;
use crate::http::query::Query;
use crate::registry::Registry;
use crate::store::Key;
use crate::{ApiServer, Config, Identifiers};

/// Requests of one input, at most.
const MOST_REQUESTS: usize = 8;
/// Between requests.
const BORDER: &str = "\n====\n";

const CRDS: [&str; 2] = [
    include_str!("../../../../deploy/crds/topolvm.io_logicalvolumes.yaml"),
    include_str!("../../../../deploy/crds/topolvm.io_snapshotbackupstorages.yaml"),
];

/// lvault's own kinds.
pub(super) fn crds() -> Vec<Value> {
    CRDS.iter().map(|text| serde_yaml_ng::from_str(text).expect("a document")).collect()
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

static SERVER: LazyLock<ApiServer> = LazyLock::new(|| RUNTIME.block_on(ApiServer::open(config())).expect("a server"));

fn config() -> Config {
    Config { identifiers: Identifiers::Seeded(1), ..Config::in_memory(crds()) }
}

/// Requests as text: `METHOD TARGET`, headers, an empty line, the body. Each is answered at once; a failure of the server is
/// none of the answers; a refusal is a `Status` of its own code; a refusal and a read change nothing; what is stored can be
/// read again.
pub(super) fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let first = &*SERVER;
    RUNTIME.block_on(async {
        let server = first.open_another(config()).await.expect("a server");
        for request in text.split(BORDER).take(MOST_REQUESTS) {
            send(&server, request);
        }
    });
}

fn parse(text: &str) -> Option<Request<Full<Bytes>>> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).ok()
}

fn send(server: &ApiServer, text: &str) {
    let Some(request) = parse(text) else { return };
    let is_dry = Query::parse(request.uri().query().unwrap_or_default()).get("dryRun") == "All";
    let is_read = is_dry || matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS");
    let is_head = request.method() == "HEAD";
    let before = server.server.shared.read().revision();
    let answered = server.service().call(request).now_or_never().expect("it is answered at once");
    let Ok(response) = answered;
    let code = response.status().as_u16();
    // What a watch has yet to say is not waited for.
    let body = response.into_body().collect().now_or_never();
    let body = body.map(|body| body.expect("it cannot fail").to_bytes()).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let after = server.server.shared.read().revision();
    // 504: a version that is yet to come. 500, as on a cluster: an applied field that the schema does not declare, and parts
    // of somebody to be impersonated without a user.
    let as_on_a_cluster = ["failed to create typed patch object", "without impersonating a user"];
    let message = answer["message"].as_str().unwrap_or_default();
    let is_known = code == 500 && as_on_a_cluster.iter().any(|known| message.contains(known));
    assert!(code < 500 || code == 504 || is_known, "{code} {answer}");
    if code >= 400 {
        assert!(is_head || (answer["kind"] == "Status" && answer["code"] == json!(code)), "{code} {answer}");
    }
    if code >= 400 || is_read {
        assert_eq!(before, after, "{code} {answer}");
    } else {
        everything_is_readable(server);
    }
}

fn everything_is_readable(server: &ApiServer) {
    let (registry, state): (&Arc<Registry>, _) = (&server.server.core.registry, server.server.shared.read());
    for (resource, _) in registry.resources() {
        for ((namespace, name), stored) in state.table(resource) {
            let key = Key { resource, namespace: namespace.clone(), name: name.clone() };
            assert!(is_readable(registry, &key, stored), "{key:?}: {stored:?}");
        }
    }
}
