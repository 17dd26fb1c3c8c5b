//! Servers, clients and kinds for the tests.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use lvault_apiserver::tls::{Identity, kubeconfig};
use lvault_apiserver::{ApiServer, Config, User};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A cluster-scoped kind with everything a CustomResourceDefinition of ours may have.
pub(crate) fn things() -> Value {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"x-kubernetes-int-or-string": true, "description": "How large it is."},
            "mode": {"type": "string", "enum": ["ro", "rw"], "default": "rw"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "nodeName": {"type": "string"},
            "code": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
            "comment": {"type": "string", "nullable": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "number": {"type": "integer"}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}},
            "x-kubernetes-validations": [
                {"rule": "!has(oldSelf.nodeName) || (has(self.nodeName) && self.nodeName == oldSelf.nodeName)",
                 "message": "nodeName never changes"}]},
        "status": {"type": "object", "properties": {
            "phase": {"type": "string", "enum": ["Pending", "Running", "Done"]},
            "message": {"type": "string"}},
            "x-kubernetes-validations": [
                {"rule": "!has(oldSelf.phase) || oldSelf.phase != 'Done' || self.phase == 'Done'",
                 "message": "a terminal phase never changes"}]}}});
    let columns = json!([
        {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
        {"name": "Count", "type": "integer", "jsonPath": ".spec.count"},
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Comment", "type": "string", "jsonPath": ".spec.comment", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]);
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                 "additionalPrinterColumns": columns, "selectableFields": [{"jsonPath": ".spec.nodeName"}],
                 "schema": {"openAPIV3Schema": schema}},
                {"name": "v1beta1", "served": true, "storage": false, "subresources": {"status": {}},
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

/// A namespaced kind without a schema, a status or anything else.
pub(crate) fn boxes() -> Value {
    json!({"metadata": {"name": "boxes.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "boxes", "kind": "Box"},
        "versions": [{"name": "v1", "served": true, "storage": true}]}})
}

pub(crate) fn kinds() -> Vec<Value> {
    vec![things(), boxes()]
}

pub(crate) fn thing(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"size": "1Gi"}})
}

pub(crate) fn box_of(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": name}, "spec": {"x": 1}})
}

pub(crate) fn thing_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Thing"), "things")
}

pub(crate) const THINGS: &str = "/apis/example.com/v1/things";
pub(crate) const BOXES: &str = "/apis/example.com/v1/namespaces/default/boxes";
pub(crate) const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A server in memory.
pub(crate) async fn in_memory() -> ApiServer {
    ApiServer::open(Config::in_memory(kinds())).await.expect("opens")
}

/// A client in the same process with the rights of this user.
pub(crate) fn client_as(server: &ApiServer, user: User) -> Http {
    Http(Client::new(server.service_as(user), "default"))
}

/// A client in the same process.
pub(crate) fn client(server: &ApiServer) -> Client {
    Client::new(server.service(), "default")
}

/// A server on a TLS port, until dropped.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) folder: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    pub(crate) async fn start(server: &ApiServer) -> Listening {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity::load_or_create(&folder.path().join("tls")).expect("an identity");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (server, serving) = (server.clone(), identity.clone());
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            server.serve(listener, &serving, shutdown).await.expect("serves");
        });
        Listening { address, identity, folder, stop: Some(stop), task }
    }

    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        kubeconfig(self.address, self.identity.ca_pem(), token)
    }

    pub(crate) async fn client(&self, token: &str) -> Client {
        Client::try_from(self.config(token).await).expect("a client")
    }

    /// A client that shows no token at all.
    pub(crate) async fn anonymous(&self) -> Client {
        let mut config = self.config("").await;
        config.auth_info = kube::config::AuthInfo::default();
        Client::try_from(config).expect("a client")
    }

    /// A client with a kubeconfig of its own.
    pub(crate) async fn client_of(&self, kubeconfig: &str) -> Http {
        Http(Client::try_from(self.config_of(kubeconfig).await).expect("a client"))
    }

    async fn config(&self, token: &str) -> kube::Config {
        self.config_of(&self.kubeconfig(token)).await
    }

    async fn config_of(&self, text: &str) -> kube::Config {
        let parsed = Kubeconfig::from_yaml(text).expect("a kubeconfig");
        let mut config =
            kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.expect("a config");
        // A refusal is to be seen, not repeated fifteen times.
        config.default_retry = false;
        config
    }

    /// A bare TLS connection that speaks HTTP/1.1.
    pub(crate) async fn tls(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        use tokio_rustls::rustls::pki_types::pem::PemObject as _;
        use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
        use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.identity.ca_pem().as_bytes()).expect("PEM")).expect("a root");
        let config = ClientConfig::builder_with_provider(crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(self.address).await.expect("connects");
        let name = ServerName::from(self.address.ip());
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.expect("TLS")
    }

    pub(crate) fn write_kubeconfig(&self) -> std::path::PathBuf {
        let file = self.folder.path().join("kubeconfig");
        std::fs::write(&file, self.kubeconfig(self.identity.token())).expect("written");
        file
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().expect("still serving").send(()).expect("still listening");
        bounded("the listener's end", &mut self.task).await.expect("ends well");
    }
}

/// Runs the case against a server in memory in the same process, then against one in a file through TLS.
pub(crate) async fn over_both<F, R>(case: F)
where
    F: Fn(Http) -> R,
    R: Future<Output = ()>,
{
    let server = in_memory().await;
    bounded("the case in process", case(Http(client(&server)))).await;
    let folder = tempfile::tempdir().expect("a folder");
    let server = open_file(&folder.path().join("store")).await;
    let listening = Listening::start(&server).await;
    let client = listening.client(listening.identity.token()).await;
    bounded("the case over TLS", case(Http(client))).await;
    listening.stop().await;
    server.close().await;
}

pub(crate) async fn open_file(file: &Path) -> ApiServer {
    ApiServer::open(Config::in_file(file, kinds())).await.expect("opens")
}

/// A user of a server, whichever way it is reached: the owner's client, acting as another (`kubectl --as`).
impl Http {
    /// Sends with the rights of this user.
    pub(crate) async fn as_user(&self, user: &str, method: Method, path: &str, body: &Value) -> Answer {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, &[("impersonate-user", user), ("content-type", kind)], bytes).await
    }

    /// Makes a ClusterRole with these rules and binds it to this user, everywhere.
    pub(crate) async fn grant(&self, role: &str, user: &str, rules: &Value) {
        let object = json!({"metadata": {"name": role}, "rules": rules});
        self.post(CLUSTER_ROLES, &object).await.expect(201);
        self.post(CLUSTER_BINDINGS, &binding(role, "ClusterRole", role, user)).await.expect(201);
    }
}

pub(crate) const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
pub(crate) const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
pub(crate) const CLUSTER_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
pub(crate) const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
pub(crate) const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
pub(crate) const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// A binding of a role to a user.
pub(crate) fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role},
           "subjects": [{"kind": "User", "name": user}]})
}

/// A rule about resources.
pub(crate) fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names})
}

/// Nothing in these tests takes longer.
pub(crate) async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

/// Plain HTTP through a client, for what its types cannot say.
#[derive(Clone)]
pub(crate) struct Http(pub(crate) Client);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
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
        assert_eq!(self.body["kind"], "Status");
        assert_eq!(self.body["status"], "Failure");
        assert_eq!(self.body["code"], code);
        self.body
    }
}

impl Http {
    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let response = self.0.send(request).await.expect("an answer");
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|value| value.to_str().expect("text").to_owned()).collect();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes)));
        Answer { code, body, warnings }
    }

    async fn with_body(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Answer {
        self.send(method, path, &[("content-type", content_type)], body.to_string().into_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
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

    pub(crate) async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Answer {
        self.with_body(Method::PATCH, path, content_type, body).await
    }

    /// Server-side apply by a manager.
    pub(crate) async fn apply(&self, path: &str, manager: &str, body: &Value) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        self.patch(&format!("{path}{separator}fieldManager={manager}"), "application/apply-patch+yaml", body).await
    }

    pub(crate) async fn delete(&self, path: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(Method::DELETE, path, &[("content-type", "application/json")], bytes).await
    }

    /// The resource version that the server has reached.
    pub(crate) async fn revision(&self) -> u64 {
        let list = self.get("/api/v1/namespaces").await.expect(200);
        list["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number")
    }
}

/// The names of a list.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["metadata"]["name"].as_str().expect("a name"))
        .collect()
}
