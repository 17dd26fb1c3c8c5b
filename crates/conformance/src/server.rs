//! The servers that cases run against: the embedded one over either transport, or one that is named.
//!
//! Holds: on a named server the suite's kinds are made for this run alone, and are gone with all that was made of them when
//! it is closed.

use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use lvault_apiserver::tls::{Identity, kubeconfig};
use lvault_apiserver::{ApiServer, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ground::{Ground, eventually};
use crate::http::{Http, names};
use crate::kinds;

/// Which server, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// The embedded server in the same process, in memory.
    Process,
    /// The embedded server through TLS, in a file.
    Tls,
    /// The server of this kubeconfig.
    Named(PathBuf),
}

/// How many changes a watch of the embedded server can catch up on: few, so that a case can outrun it.
const HISTORY: usize = 64;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAMESPACES: &str = "/api/v1/namespaces";
/// The label of the namespaces of a run.
const RUN: &str = "conformance-run";

/// A server that is ready for cases.
pub struct Server {
    http: Http,
    stranger: Option<Http>,
    group: String,
    run: String,
    controllers: bool,
    named: bool,
    embedded: Option<ApiServer>,
    listening: Option<Listening>,
}

struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// Eight letters that no other run has.
fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect()
}

/// A refusal is to be seen, not repeated.
fn client(mut config: kube::Config) -> Client {
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

fn unknown(config: &kube::Config) -> kube::Config {
    let mut config = config.clone();
    config.auth_info = AuthInfo { token: Some(String::from("nobodys.token").into()), ..AuthInfo::default() };
    config
}

impl Server {
    /// Opens the server, or reaches it, and sees to the suite's kinds.
    ///
    /// # Panics
    /// When that is not possible; the message says why.
    pub async fn open(transport: &Transport) -> Server {
        match transport {
            Transport::Process => Server::in_process().await,
            Transport::Tls => Server::over_tls().await,
            Transport::Named(kubeconfig) => Server::named(kubeconfig).await,
        }
    }

    fn of(http: Http) -> Server {
        let run = unique();
        let group = String::from("conformance.lvault.dev");
        Server { http, stranger: None, group, run, controllers: true, named: false, embedded: None, listening: None }
    }

    async fn in_process() -> Server {
        let mut config = Config::in_memory(kinds::documents("conformance.lvault.dev"));
        config.watch_history = HISTORY;
        let embedded = ApiServer::open(config).await.expect("the server opens");
        let http = Http::new(Client::new(embedded.service(), "default"));
        Server { embedded: Some(embedded), ..Server::of(http) }
    }

    async fn over_tls() -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::in_file(folder.path().join("store"), kinds::documents("conformance.lvault.dev"));
        config.watch_history = HISTORY;
        let embedded = ApiServer::open(config).await.expect("the server opens");
        let identity = Identity::load_or_create(&folder.path().join("tls")).expect("an identity");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let (serving, shown) = (embedded.clone(), identity.clone());
        let task = tokio::spawn(async move {
            serving.serve(listener, &shown, async { drop(stopped.await) }).await.expect("serves");
        });
        let text = kubeconfig(address, identity.ca_pem(), identity.token());
        let config = read(Kubeconfig::from_yaml(&text).expect("a kubeconfig")).await;
        let stranger = Some(Http::new(client(unknown(&config))));
        let listening = Some(Listening { stop, task, _folder: folder });
        Server { embedded: Some(embedded), stranger, listening, ..Server::of(Http::new(client(config))) }
    }

    async fn named(kubeconfig: &PathBuf) -> Server {
        let text = Kubeconfig::read_from(kubeconfig);
        let config = read(text.expect("LVAULT_TEST_KUBECONFIG names a kubeconfig")).await;
        let stranger = Some(Http::new(client(unknown(&config))));
        let mut server = Server { stranger, named: true, ..Server::of(Http::new(client(config))) };
        server.group = format!("run-{}.conformance.lvault.dev", server.run);
        let leader = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
        server.controllers = server.http.get(leader).await.code == 200;
        for document in kinds::documents(&server.group) {
            server.http.post(CRDS, &document).await.expect(201);
        }
        for document in kinds::documents(&server.group) {
            server.wait_for(&document).await;
        }
        server
    }

    /// Waits until a kind is established and answers again and again, for a cluster may have several servers.
    async fn wait_for(&self, document: &Value) {
        let name = document["metadata"]["name"].as_str().expect("a name");
        let path = format!("{CRDS}/{name}");
        let list = format!("/apis/{}/v1/{}", self.group, document["spec"]["names"]["plural"].as_str().expect("text"));
        eventually(&format!("the kind {name}"), || async {
            let found = self.http.get(&path).await.expect(200);
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if let Some(refused) = conditions.iter().find(|c| c["type"] == "NonStructuralSchema") {
                panic!("{refused}");
            }
            conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True").then_some(())
        })
        .await;
        for _ in 0..5 {
            eventually(&list, || async { (self.http.get(&list).await.code == 200).then_some(()) }).await;
        }
    }

    /// Whether the server collects garbage and empties namespaces.
    pub(crate) fn has_controllers(&self) -> bool {
        self.controllers
    }

    pub(crate) fn has_strangers(&self) -> bool {
        self.stranger.is_some()
    }

    /// Whether server-side apply is served.
    pub(crate) async fn applies(&self) -> bool {
        let path = format!("/apis/{}/v1/namespaces/default/widgets/none", self.group);
        self.http.apply(&path, "probe&dryRun=All", &json!({})).await.code != 415
    }

    /// A namespace for one case.
    pub(crate) async fn ground(&self) -> Ground {
        let namespace = format!("c-{}", unique());
        let object = json!({"apiVersion": "v1", "kind": "Namespace",
                            "metadata": {"name": namespace, "labels": {RUN: self.run}}});
        self.http.post(NAMESPACES, &object).await.expect(201);
        Ground { http: self.http.clone(), stranger: self.stranger.clone(), group: self.group.clone(), namespace }
    }

    /// Removes what a run left on a named server and waits until it is gone; an embedded one ends with all it has.
    pub async fn close(self) {
        if self.named {
            self.clean().await;
        }
        if let Some(listening) = self.listening {
            listening.stop.send(()).ok();
            drop(tokio::time::timeout(Duration::from_secs(10), listening.task).await);
        }
        if let Some(embedded) = self.embedded {
            embedded.close().await;
        }
    }

    async fn clean(&self) {
        let version = format!("/apis/{}/v1", self.group);
        for plural in ["widgets", "gadgets"] {
            let list = self.http.get(&format!("{version}/{plural}")).await.expect(200);
            for item in list["items"].as_array().expect("items") {
                let (metadata, inside) = (&item["metadata"], item["metadata"]["namespace"].as_str());
                let scope = inside.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
                let path = format!("{version}{scope}/{plural}/{}", metadata["name"].as_str().expect("a name"));
                self.http.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
                self.http.delete(&path).await;
            }
        }
        let selected = format!("{NAMESPACES}?labelSelector={RUN}%3D{}", self.run);
        let found = self.http.get(&selected).await.expect(200);
        for name in names(&found) {
            self.remove_namespace(name).await;
        }
        for document in kinds::documents(&self.group) {
            let path = format!("{CRDS}/{}", document["metadata"]["name"].as_str().expect("a name"));
            self.http.delete(&path).await;
            eventually(&path, || async { (self.http.get(&path).await.code == 404).then_some(()) }).await;
        }
    }

    async fn remove_namespace(&self, name: &str) {
        let path = format!("{NAMESPACES}/{name}");
        for inside in ["api/v1/namespaces/NAME/secrets", "api/v1/namespaces/NAME/events"] {
            self.http.delete(&format!("/{}", inside.replace("NAME", name))).await;
        }
        self.http.delete(&format!("/apis/coordination.k8s.io/v1/namespaces/{name}/leases")).await;
        self.http.delete(&path).await;
        if !self.controllers {
            // Nobody else will ever take the namespace's own finalizer away.
            let mut object = self.http.get(&path).await.body;
            object["spec"]["finalizers"] = json!([]);
            self.http.put(&format!("{path}/finalize"), &object).await;
        }
        eventually(&path, || async { (self.http.get(&path).await.code == 404).then_some(()) }).await;
    }
}

async fn read(kubeconfig: Kubeconfig) -> kube::Config {
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a usable kubeconfig")
}
