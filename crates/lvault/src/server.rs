//! The API server as the commands use it: found by a kubeconfig, asked with a time limit, and its errors put in words.
//!
//! What holds here: every request ends within [`LIMIT`]; a refusal is shown by field, never as raw JSON.

use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, USER_AGENT};
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use lvault_api::{LogicalVolume, SnapshotBackupStorage, StorageReference};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Place;
use crate::error::{Cause, CliError, named};
use crate::names;
use crate::state::{self, StateDir};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to the API, and what is known of the node behind it.
#[derive(Clone)]
pub struct Server {
    client: Client,
    address: String,
    node: Option<String>,
}

impl Server {
    /// Connects by the kubeconfig that the flag, the environment or the state folder names. Asks nothing yet.
    pub async fn connect(place: &Place) -> Result<Self, CliError> {
        let named = place.kubeconfig.clone();
        let variable = || std::env::var_os(state::KUBECONFIG).filter(|value| !value.is_empty()).map(PathBuf::from);
        match named.or_else(variable) {
            Some(file) => {
                let client = client(&file, "name a kubeconfig that can be read with --kubeconfig").await?;
                Ok(Server { client: client.0, address: client.1, node: None })
            }
            None => {
                let state = StateDir::find(place.state_dir.as_deref())?;
                let file = state.kubeconfig();
                if let Err(error) = std::fs::metadata(&file) {
                    return Err(CliError::NoServer {
                        address: state.root().display().to_string(),
                        happened: format!("its kubeconfig cannot be read: {error}"),
                        remedy: start(&state),
                    });
                }
                let (client, address) = client(&file, &start(&state)).await?;
                Ok(Server { client, address, node: state.node() })
            }
        }
    }

    /// A server that runs in this process.
    pub fn in_process(client: Client, address: String, node: String) -> Self {
        Server { client, address, node: Some(node) }
    }

    /// The client itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The node whose agent works behind this server, where that is known.
    pub fn known_node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The node for a new volume: the one asked for, else the one behind the server, else this host.
    pub fn node_for(&self, asked: Option<&str>) -> Result<String, CliError> {
        match (asked, &self.node) {
            (Some(asked), Some(own)) if asked != own => Err(CliError::input(
                "--node",
                format!("'{asked}' is not the node of this lvault, and nobody else would make the volume"),
                format!("leave it out, or write {own}"),
            )),
            (Some(asked), _) => names::object_name("--node", asked),
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => names::host(),
        }
    }

    /// All LogicalVolumes, by name.
    pub async fn volumes(&self) -> Result<Vec<LogicalVolume>, CliError> {
        self.list(self.volume_api(), "listing volumes").await
    }

    /// One LogicalVolume, where it exists.
    pub async fn volume(&self, name: &str) -> Result<Option<LogicalVolume>, CliError> {
        self.ask(&format!("reading {name}"), self.volume_api().get_opt(name)).await
    }

    /// All storages, by namespace and name.
    pub async fn storages(&self) -> Result<Vec<SnapshotBackupStorage>, CliError> {
        self.list(Api::all(self.client()), "listing storages").await
    }

    /// One storage, where it exists.
    pub async fn storage(&self, at: &StorageReference) -> Result<Option<SnapshotBackupStorage>, CliError> {
        self.ask(&format!("reading storage {at}"), self.storage_api(&at.namespace).get_opt(&at.name)).await
    }

    /// One Secret, where it exists.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, CliError> {
        let api: Api<Secret> = Api::namespaced(self.client(), namespace);
        self.ask(&format!("reading Secret {namespace}/{name}"), api.get_opt(name)).await
    }

    /// Whether a namespace exists.
    pub async fn has_namespace(&self, name: &str) -> Result<bool, CliError> {
        let api: Api<Namespace> = Api::all(self.client());
        Ok(self.ask(&format!("reading namespace {name}"), api.get_opt(name)).await?.is_some())
    }

    /// The events about an object, oldest first.
    pub async fn events(&self, uid: &str) -> Result<Vec<Event>, CliError> {
        let api: Api<Event> = Api::all(self.client());
        let of_it = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let mut events = self.ask("listing events", api.list(&of_it)).await?.items;
        let when =
            |event: &Event| event.last_timestamp.clone().map(|time| time.0).or(event.creation_timestamp().map(|t| t.0));
        events.sort_by_key(when);
        Ok(events)
    }

    /// Creates an object. An object of that name that exists already is an error.
    pub async fn create<K>(&self, api: &Api<K>, object: &K, tried: &str) -> Result<K, CliError>
    where
        K: Clone + DeserializeOwned + Debug + Serialize + kube::Resource,
    {
        self.ask(tried, api.create(&PostParams::default(), object)).await
    }

    /// Changes the fields that a merge patch names.
    pub async fn merge<K>(&self, api: &Api<K>, name: &str, patch: &Value, tried: &str) -> Result<K, CliError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.ask(tried, api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await
    }

    /// Asks for the removal of exactly this object, not of another one that has taken its name. One that is gone
    /// already is removed.
    pub async fn remove<K>(&self, api: &Api<K>, object: &K, tried: &str) -> Result<(), CliError>
    where
        K: Clone + DeserializeOwned + Debug + kube::Resource,
    {
        let this = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
        let name = object.meta().name.clone().unwrap_or_default();
        let gone = async {
            match api.delete(&name, &params).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.ask(tried, gone).await
    }

    /// LogicalVolumes.
    pub fn volume_api(&self) -> Api<LogicalVolume> {
        Api::all(self.client())
    }

    /// The storages of a namespace.
    pub fn storage_api(&self, namespace: &str) -> Api<SnapshotBackupStorage> {
        Api::namespaced(self.client(), namespace)
    }

    /// Waits for an answer, not for ever, and puts what went wrong in words.
    pub async fn ask<T>(
        &self,
        tried: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CliError> {
        match tokio::time::timeout(LIMIT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(tried, error)),
            Err(_) => Err(self.silent(&format!("no answer within {} s", LIMIT.as_secs()))),
        }
    }

    async fn list<K>(&self, api: Api<K>, tried: &str) -> Result<Vec<K>, CliError>
    where
        K: Clone + DeserializeOwned + Debug + kube::Resource,
    {
        let mut items = self.ask(tried, api.list(&ListParams::default())).await?.items;
        items.sort_by_key(|item| (item.meta().namespace.clone(), item.meta().name.clone()));
        Ok(items)
    }

    fn silent(&self, happened: &str) -> CliError {
        CliError::NoServer {
            address: self.address.clone(),
            happened: happened.to_owned(),
            remedy: "start it with `lvault up`, or look at what it says where it runs".to_owned(),
        }
    }

    /// An error of the client as an error for the user.
    pub fn explain(&self, tried: &str, error: kube::Error) -> CliError {
        let kube::Error::Api(status) = error else {
            return self.silent(&with_causes(&error));
        };
        let api = |remedy: &str| CliError::Api {
            tried: tried.to_owned(),
            happened: status.message.clone(),
            remedy: remedy.to_owned(),
        };
        let refused = || {
            let told = status.details.iter().flat_map(|details| &details.causes);
            let mut causes: Vec<Cause> =
                told.map(|cause| Cause { field: named(&cause.field), message: cause.message.clone() }).collect();
            if causes.is_empty() {
                causes.push(Cause { field: String::new(), message: status.message.clone() });
            }
            CliError::Refused { tried: tried.to_owned(), causes }
        };
        match (status.code, status.reason.as_str()) {
            (422 | 400, _) => refused(),
            (409, "AlreadyExists") => CliError::Impossible {
                tried: tried.to_owned(),
                happened: "the name is taken".to_owned(),
                remedy: "choose another name, or look at what has it with `lvault get NAME`".to_owned(),
            },
            (409, _) => api("somebody else has just changed it: look at it, and try again"),
            (404, _) => api("look at what there is with `lvault get`"),
            (401 | 403, _) => {
                api("use the kubeconfig of the running lvault; its token is renewed with its state folder")
            }
            (_, _) => api("look at what the server says where it runs, and try again"),
        }
    }
}

fn start(state: &StateDir) -> String {
    if StateDir::find(None).is_ok_and(|usual| usual.root() == state.root()) {
        "start it with `lvault up`".to_owned()
    } else {
        format!("start it with `lvault up --state-dir {}`", state.root().display())
    }
}

/// By whom requests are made: an API keeps the part before the slash as the manager of the fields that are written.
pub fn user_agent(program: &'static str) -> (HeaderName, HeaderValue) {
    let agent = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
    (USER_AGENT, HeaderValue::try_from(agent).unwrap_or(HeaderValue::from_static("lvault")))
}

async fn client(file: &Path, remedy: &str) -> Result<(Client, String), CliError> {
    let failed = |error: &dyn std::error::Error| CliError::file("reading", file, with_causes(error), remedy);
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| failed(&error))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| failed(&error))?;
    config.headers.push(user_agent("lvault"));
    config.connect_timeout = Some(Duration::from_secs(10));
    let address = config.cluster_url.to_string();
    Ok((Client::try_from(config).map_err(|error| failed(&error))?, address))
}

/// An error with everything beneath it that it does not say itself.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use lvault_apiserver::{ApiServer, Config as ApiConfig};
    use serde_json::json;

    async fn server() -> Server {
        let api = ApiServer::open(ApiConfig::in_memory(lvault_api::crds::all())).await.expect("an API server");
        Server::in_process(Client::new(api.service(), "default"), "here".to_owned(), "n1".to_owned())
    }

    fn new_volume() -> LogicalVolume {
        let mut volume = testing::volume(json!({}));
        volume.metadata.uid = None;
        volume.status = None;
        volume
    }

    #[tokio::test]
    async fn an_object_that_has_taken_the_name_of_another_is_not_removed() {
        let server = server().await;
        let api = server.volume_api();
        let old = server.create(&api, &new_volume(), "creating").await.expect("created");
        server.remove(&api, &old, "removing").await.expect("removed");
        server.remove(&api, &old, "removing").await.expect("gone is removed");
        let new = server.create(&api, &new_volume(), "creating").await.expect("created");
        server.remove(&api, &old, "removing").await.expect_err("it is another one");
        let there = server.volume("v1").await.expect("read").expect("still there");
        assert_eq!(there.uid(), new.uid());
    }

    #[tokio::test]
    async fn refusals_are_told_by_field_and_not_as_json() {
        let server = server().await;
        let api = server.volume_api();
        let mut wrong = new_volume();
        wrong.spec.node_name = String::new();
        wrong.spec.size.0 = "much".to_owned();
        let refused = server.create(&api, &wrong, "creating volume v1").await.expect_err("it is wrong");
        let text = refused.to_string();
        assert!(text.starts_with("creating volume v1 was refused: "), "{text}");
        assert!(text.contains("spec.nodeName: ") && text.contains("--size (spec.size): "), "{text}");
        assert!(!text.contains('{') && refused.exit_code() == 2, "{text}");

        server.create(&api, &new_volume(), "creating").await.expect("created");
        let taken = server.create(&api, &new_volume(), "creating volume v1").await.expect_err("it exists");
        assert_eq!(taken.to_string(), "creating volume v1 is not possible: the name is taken");
        let gone = server.merge(&api, "v2", &json!({}), "changing v2").await.expect_err("it does not exist");
        assert!(gone.to_string().starts_with("changing v2 failed: "), "{gone}");
    }

    #[tokio::test]
    async fn volumes_are_made_where_somebody_makes_them() {
        let server = server().await;
        assert_eq!(server.node_for(None).ok().as_deref(), Some("n1"));
        assert_eq!(server.node_for(Some("n1")).ok().as_deref(), Some("n1"));
        assert!(server.node_for(Some("n2")).is_err());
        let elsewhere = Server { node: None, ..server };
        assert_eq!(elsewhere.node_for(Some("n2")).ok().as_deref(), Some("n2"));
        assert!(elsewhere.node_for(Some("N2")).is_err());
    }
}
