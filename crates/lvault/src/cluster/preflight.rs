//! What a cluster has to have before anything can work: the CRDs of this version, and the rights of its manifests.
//!
//! What holds here: what is missing is named, in the log, in `/readyz` and in an event about the pod, and waited for; nothing ends
//! because of it, and nothing is begun before. An API that gives no answer is waited for too.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use lvault_api::{LogicalVolume, SnapshotBackupStorage, keys};
use serde_json::Value;
use tracing::{info, warn};

use super::health::Health;

/// How soon what is missing is looked for again.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// So many missing fields are named.
const NAMED: usize = 5;

/// Who asks, and where it tells what is missing.
pub(super) struct Preflight<'a> {
    pub(super) client: &'a Client,
    pub(super) health: &'a Health,
    /// The node whose volumes are to be listed; all of them where it is none.
    pub(super) node: Option<&'a str>,
    /// The own pod, where it is known.
    pub(super) pod: Option<ObjectReference>,
}

/// The pod that this process runs in. Events are found by its uid.
pub(super) fn own_pod(namespace: &str, name: Option<&str>, uid: Option<&str>) -> Option<ObjectReference> {
    Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(name?.to_owned()),
        namespace: Some(namespace.to_owned()),
        uid: Some(uid?.to_owned()),
        ..ObjectReference::default()
    })
}

impl Preflight<'_> {
    /// Returns once the cluster has all that is needed.
    pub(super) async fn pass(&self) {
        let mut told = None;
        while let Err(missing) = self.look().await {
            if told.as_ref() != Some(&missing) {
                warn!("waiting: {missing}");
                self.health.set_waiting(&missing);
                self.tell(&missing).await;
                told = Some(missing);
            }
            tokio::time::sleep(PAUSE).await;
        }
        if told.is_some() {
            info!("what was missing is there");
        }
    }

    /// What is missing, and what to do.
    async fn look(&self) -> Result<(), String> {
        let served = bounded(self.client.request::<Value>(document())).await;
        match served {
            Ok(document) => {
                for crd in lvault_api::crds::all() {
                    is_as_new(&document, &crd)?;
                }
            }
            // An account that may not look is told so by the lists.
            Err(Missing::Refused(403, _)) => {}
            Err(missing) => return Err(missing.said("look at the CRDs of topolvm.io")),
        }
        let volumes: Api<LogicalVolume> = Api::all(self.client.clone());
        let own = match self.node {
            Some(node) => ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1),
            None => ListParams::default().limit(1),
        };
        bounded(volumes.list_metadata(&own)).await.map_err(|missing| missing.said("list the LogicalVolumes"))?;
        let storages: Api<SnapshotBackupStorage> = Api::all(self.client.clone());
        let first = ListParams::default().limit(1);
        let listed = bounded(storages.list_metadata(&first)).await;
        listed.map(drop).map_err(|missing| missing.said("list the SnapshotBackupStorages"))
    }

    /// As an event about the pod. A courtesy: where it cannot be written, the log says it too.
    async fn tell(&self, missing: &str) {
        let Some(pod) = &self.pod else { return };
        let (name, namespace) = (pod.name.clone().unwrap_or_default(), pod.namespace.clone().unwrap_or_default());
        let (now, message) = (Timestamp::now(), missing.chars().take(1000).collect());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: pod.clone(),
            type_: Some("Warning".to_owned()),
            reason: Some("ClusterNotReady".to_owned()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some("lvault".to_owned()), ..EventSource::default() }),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(Missing::Refused(_, problem) | Missing::Unknown(problem)) =
            bounded(api.create(&PostParams::default(), &event)).await
        {
            warn!("cannot tell it as an event of the pod: {problem}");
        }
    }
}

fn document() -> http::Request<Vec<u8>> {
    let uri = format!("/openapi/v3/apis/{}/{}", keys::GROUP, keys::VERSION);
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = http::Uri::try_from(uri).unwrap_or_default();
    request
}

/// Why there was no answer.
enum Missing {
    /// The API's refusal, with its code and its words.
    Refused(u16, String),
    /// Nobody knows.
    Unknown(String),
}

impl Missing {
    fn said(self, tried: &str) -> String {
        match self {
            Missing::Refused(404, _) => {
                format!("cannot {tried}: the cluster does not know them; apply deploy/crds")
            }
            // The API server's words: the field selector is not known to it.
            Missing::Refused(400, said) => format!(
                "cannot {tried}: {said}. Selecting by spec.nodeName needs Kubernetes 1.31 or newer and the CRDs of lvault {}: apply \
                 deploy/crds",
                env!("CARGO_PKG_VERSION")
            ),
            Missing::Refused(403, said) => {
                format!("cannot {tried}: {said}; apply deploy/base/rbac.yaml of this version")
            }
            Missing::Refused(401, said) => format!("cannot {tried}: {said}; look at the ServiceAccount of this pod"),
            Missing::Refused(_, said) | Missing::Unknown(said) => format!("cannot {tried}: {said}"),
        }
    }
}

async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Missing> {
    match tokio::time::timeout(ANSWER, request).await {
        Err(_) => Err(Missing::Unknown(format!("no answer within {} s", ANSWER.as_secs()))),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Missing::Refused(status.code, status.message.clone())),
        Ok(Err(error)) => Err(Missing::Unknown(crate::server::with_causes(&error))),
    }
}

/// Whether what the API serves has every field that this version writes or reads: what it does not know it would drop without a
/// word.
fn is_as_new(document: &Value, crd: &Value) -> Result<(), String> {
    let kind = crd.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default();
    let ours = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap_or(&Value::Null);
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    let is_ours = |schema: &&Value| {
        let names = schema["x-kubernetes-group-version-kind"].as_array();
        names.into_iter().flatten().any(|name| name["kind"] == kind && name["group"] == keys::GROUP)
    };
    let Some(served) = schemas.and_then(|schemas| schemas.values().find(is_ours)) else {
        return Err(format!("the cluster does not know {kind} of {}: apply deploy/crds", keys::GROUP));
    };
    let mut lacks = Vec::new();
    compare(ours, served, &mut String::new(), &mut lacks);
    if lacks.is_empty() {
        return Ok(());
    }
    let more = if lacks.len() > NAMED { " and more" } else { "" };
    lacks.truncate(NAMED);
    Err(format!(
        "the CRD of {kind} is older than lvault {}: it lacks {}{more}, and the API would drop what is written there; apply \
         deploy/crds of this version",
        env!("CARGO_PKG_VERSION"),
        lacks.join(", ")
    ))
}

/// The fields that `ours` has and `served` lacks. A part that keeps whatever is written to it lacks nothing.
fn compare(ours: &Value, served: &Value, path: &mut String, lacks: &mut Vec<String>) {
    if served["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, field) in ours["properties"].as_object().into_iter().flatten() {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        match served["properties"].get(name) {
            Some(there) => compare(field, there, path, lacks),
            None => lacks.push(path.clone()),
        }
        path.truncate(length);
    }
    if ours["items"].is_object() {
        compare(&ours["items"], &served["items"], path, lacks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A document as the API publishes it, of CRDs that `change` has changed.
    fn document(change: impl Fn(&mut Value)) -> Value {
        let mut schemas = serde_json::Map::new();
        for crd in lvault_api::crds::all() {
            let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            let kind = crd["spec"]["names"]["kind"].clone();
            schema["x-kubernetes-group-version-kind"] = json!([{"group": "topolvm.io", "kind": kind, "version": "v1"}]);
            change(&mut schema);
            schemas.insert(format!("io.topolvm.v1.{kind}"), schema);
        }
        json!({"components": {"schemas": schemas}})
    }

    fn check(document: &Value) -> Result<(), String> {
        lvault_api::crds::all().iter().try_for_each(|crd| is_as_new(document, crd))
    }

    #[test]
    fn a_crd_that_lacks_a_field_is_named_with_the_field() {
        check(&document(|_| {})).expect("the same version");
        let without = |pointer: &'static str, name: &'static str| {
            document(move |schema| {
                if let Some(Value::Object(fields)) = schema.pointer_mut(pointer) {
                    fields.remove(name);
                }
            })
        };
        for (pointer, name, said) in [
            ("/properties/spec/properties", "onlineSnapshot", "it lacks spec.onlineSnapshot,"),
            (
                "/properties/status/properties/restore/properties/executor/properties",
                "launch",
                "it lacks status.restore.executor.launch,",
            ),
            (
                "/properties/status/properties/conditions/items/properties",
                "observedGeneration",
                "it lacks status.conditions.observedGeneration,",
            ),
        ] {
            let refused = check(&without(pointer, name)).expect_err(name);
            assert!(refused.contains("LogicalVolume is older") && refused.contains(said), "{refused}");
        }
        let kept = document(|schema| {
            schema["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        });
        check(&kept).expect("nothing is dropped");
        let none = check(&json!({"components": {"schemas": {}}})).expect_err("there is none");
        assert!(none.contains("apply deploy/crds"), "{none}");
    }
}
