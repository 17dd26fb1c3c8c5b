//! What is not well formed: every such request gets an answer, and the right one.

use http::Method;
use serde_json::json;

use crate::setup::{Http, THINGS, over_both, thing};

#[tokio::test]
async fn malformed_requests_are_answered() {
    over_both(|http: Http| async move {
        let json_type = [("content-type", "application/json")];
        let bodies: [&[u8]; 6] = [b"", b"{", b"\xff\xfe", b"null", b"3", b"[]"];
        for body in bodies {
            http.send(Method::POST, THINGS, &json_type, body.to_vec()).await.refused(400, "BadRequest");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        http.send(Method::POST, THINGS, &json_type, deep.into_bytes()).await.refused(400, "BadRequest");
        let text = [("content-type", "text/plain")];
        http.send(Method::POST, THINGS, &text, b"x".to_vec()).await.refused(415, "UnsupportedMediaType");
        let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
        http.send(Method::POST, THINGS, &protobuf, b"k8s\0".to_vec()).await.refused(415, "UnsupportedMediaType");
        let yaml = [("content-type", "application/yaml")];
        let object = b"apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: y}\nspec: {size: 3}\n";
        http.send(Method::POST, THINGS, &yaml, object.to_vec()).await.expect(201);

        for path in ["/nothing", "/apis/example.com/v1/others", "/apis/example.com/v1/things/a/scale", "/api/v1/%ff%fe"]
        {
            http.get(path).await.refused(404, "NotFound");
        }
        http.send(Method::POST, "/version", &json_type, b"{}".to_vec()).await.refused(405, "MethodNotAllowed");
        http.post(&format!("{THINGS}/a"), &thing("a")).await.refused(405, "MethodNotAllowed");
        http.send(Method::OPTIONS, THINGS, &[], Vec::new()).await.refused(405, "MethodNotAllowed");
        http.put(THINGS, &thing("a")).await.refused(405, "MethodNotAllowed");
        http.get(&format!("{THINGS}?watch=perhaps")).await.refused(400, "BadRequest");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_an_answer() {
    over_both(|http: Http| async move {
        let mut large = thing("a");
        large["metadata"]["annotations"] = json!({"x": "y".repeat(20 * 1024 * 1024)});
        http.post(THINGS, &large).await.refused(413, "RequestEntityTooLarge");
        let mut annotated = thing("a");
        annotated["metadata"]["annotations"] = json!({"x": "y".repeat(256 * 1024 + 1)});
        http.post(THINGS, &annotated).await.refused(422, "Invalid");
        http.post(THINGS, &thing("a")).await.expect(201);
    })
    .await;
}

mod noise {
    //! Random requests: each gets an answer that is none of the server's own failure.

    use bytes::Bytes;
    use http::{Method, Request};
    use http_body_util::{BodyExt as _, Full};
    use lvault_apiserver::ApiServer;
    use proptest::prelude::*;
    use tower::ServiceExt as _;

    use crate::setup::in_memory;

    fn path() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            Just(String::from("apis")),
            Just(String::from("api")),
            Just(String::from("v1")),
            Just(String::from("example.com")),
            Just(String::from("things")),
            Just(String::from("secrets")),
            Just(String::from("namespaces")),
            Just(String::from("default")),
            Just(String::from("a")),
            Just(String::from("status")),
            Just(String::from("openapi")),
            "[a-zA-Z0-9%.~!$&'()*+;=:@-]{0,8}",
        ];
        let known = prop_oneof![
            Just(String::from("/apis/example.com/v1/things")),
            Just(String::from("/apis/example.com/v1/things/a")),
            Just(String::from("/apis/example.com/v1/things/a/status")),
            Just(String::from("/api/v1/namespaces/default/secrets/s")),
            Just(String::from("/api/v1/namespaces")),
        ];
        prop_oneof![known, proptest::collection::vec(segment, 0..7).prop_map(|parts| format!("/{}", parts.join("/")))]
    }

    fn query() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            Just("labelSelector"),
            Just("fieldSelector"),
            Just("limit"),
            Just("continue"),
            Just("resourceVersion"),
            Just("resourceVersionMatch"),
            Just("dryRun"),
            Just("fieldValidation"),
            Just("propagationPolicy"),
            Just("x"),
        ];
        let value = "[a-z0-9%,=!()<>. \\\\-]{0,12}"
            .prop_map(|text: String| text.replace(' ', "+").replace(['<', '>', '\\'], "%3c"));
        proptest::collection::vec((name, value).prop_map(|(name, value)| format!("{name}={value}")), 0..3)
            .prop_map(|pairs| pairs.join("&"))
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let fragments = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"metadata\""),
            Just("\"name\""),
            Just("\"spec\""),
            Just("\"size\""),
            Just("\"kind\""),
            Just("\"Thing\""),
            Just("\"apiVersion\""),
            Just("null"),
            Just("\"example.com/v1\""),
            Just("\"a\""),
            Just("1e400"),
            Just("-1"),
            Just("\"op\""),
            Just("\"add\""),
            Just("\"path\""),
            Just("\"/metadata/x\""),
            Just("\u{0}"),
            Just("\"\\ud800\""),
            Just("true"),
        ];
        let object = prop_oneof![
            Just(r#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"size":1}}"#),
            Just(r#"{"metadata":{"name":"s","ownerReferences":[{"uid":"1"}],"labels":null},"data":[]}"#),
            Just(r#"[{"op":"add","path":"/metadata/labels","value":{"a":1}}]"#),
            Just(r#"{"metadata":null,"spec":[],"status":3}"#),
        ];
        prop_oneof![
            object.prop_map(|text| text.as_bytes().to_vec()),
            proptest::collection::vec(fragments, 0..24).prop_map(|parts| parts.concat().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..64),
        ]
    }

    fn request() -> impl Strategy<Value = (String, String, String, Vec<u8>)> {
        let method = prop_oneof![
            Just("GET"),
            Just("POST"),
            Just("PUT"),
            Just("PATCH"),
            Just("DELETE"),
            Just("HEAD"),
            Just("ODD")
        ];
        let kind = prop_oneof![
            Just("application/json"),
            Just("application/yaml"),
            Just("application/merge-patch+json"),
            Just("application/json-patch+json"),
            Just("application/strategic-merge-patch+json"),
            Just(";;="),
        ];
        let target = (path(), query()).prop_map(|(path, query)| format!("{path}?{query}"));
        (method.prop_map(String::from), target, kind.prop_map(String::from), body())
    }

    async fn send(
        server: &ApiServer,
        (method, target, kind, body): (String, String, String, Vec<u8>),
    ) -> Result<(), TestCaseError> {
        let Ok(request) = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(&target)
            .header("content-type", &kind)
            .body(Full::new(Bytes::from(body)))
        else {
            return Ok(());
        };
        let response = server.service().oneshot(request).await.expect("never fails");
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("never fails").to_bytes();
        // 504 says that a resource version was asked for that is yet to come.
        prop_assert!(code < 500 || code == 504, "{method} {target}: {code} {bytes:?}");
        if code >= 400 {
            let status: serde_json::Value = serde_json::from_slice(&bytes).expect("a Status object");
            prop_assert_eq!(&status["code"], code);
        }
        Ok(())
    }

    #[test]
    fn random_requests_are_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(in_memory());
        let config = ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(asked in request())| {
            runtime.block_on(send(&server, asked))?;
        });
    }
}
