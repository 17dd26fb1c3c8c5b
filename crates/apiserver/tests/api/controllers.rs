//! Programs as people write them with kube-rs: a derived kind, a reflector, a controller with children, server-side apply.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _};
use lvault_apiserver::{ApiServer, Config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::setup::{Listening, bounded, client};

/// A kind as a user derives it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Vault", namespaced, status = "VaultStatus", shortname = "vt")]
#[serde(rename_all = "camelCase")]
struct VaultSpec {
    /// How many keys it has.
    keys: u32,
    owner: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct VaultStatus {
    ready: bool,
    observed_generation: i64,
}

fn vault(name: &str, keys: u32) -> Vault {
    Vault::new(name, VaultSpec { keys, owner: None })
}

async fn open() -> ApiServer {
    let document = serde_json::to_value(Vault::crd()).expect("JSON");
    ApiServer::open(Config::in_memory(vec![document])).await.expect("the derived kind is taken as it is")
}

/// Runs the case in the same process, then through TLS.
async fn over_both<F, R>(case: F)
where
    F: Fn(Client) -> R,
    R: Future<Output = ()>,
{
    let server = open().await;
    bounded("the case in process", case(client(&server))).await;
    let server = open().await;
    let listening = Listening::start(&server).await;
    let client = listening.client(listening.identity.token()).await;
    bounded("the case over TLS", case(client)).await;
    listening.stop().await;
}

#[tokio::test]
async fn a_derived_kind_goes_there_and_back() {
    over_both(|client| async move {
        let api: Api<Vault> = Api::namespaced(client, "default");
        let made = api.create(&PostParams::default(), &vault("a", 3)).await.expect("created");
        assert_eq!((made.spec.keys, made.status.clone()), (3, None));
        let status = json!({"status": {"ready": true, "observedGeneration": 1}});
        let ready = api.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.expect("patched");
        assert_eq!(ready.status, Some(VaultStatus { ready: true, observed_generation: 1 }));
        let mut changed = ready.clone();
        changed.spec.owner = Some(String::from("me"));
        changed.status = None;
        let replaced = api.replace("a", &PostParams::default(), &changed).await.expect("replaced");
        assert_eq!((replaced.metadata.generation, replaced.status.clone()), (Some(2), ready.status));
        let stale = api.replace("a", &PostParams::default(), &changed).await.expect_err("stale");
        assert!(matches!(stale, kube::Error::Api(status) if status.is_conflict()));
        let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
        let unknown = api.patch("a", &strict, &Patch::Merge(json!({"spec": {"odd": 1}}))).await.expect_err("unknown");
        assert!(matches!(unknown, kube::Error::Api(status) if status.code == 400));
        let negative = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"keys": -1}}))).await;
        assert!(matches!(negative, Err(kube::Error::Api(status)) if status.is_invalid()));
        assert!(api.delete("a", &DeleteParams::default()).await.expect("deleted").is_right());
        assert!(api.get_opt("a").await.expect("read").is_none());
    })
    .await;
}

#[tokio::test]
async fn a_reflector_holds_what_is_stored() {
    over_both(|client| async move {
        let api: Api<Vault> = Api::namespaced(client, "default");
        for streaming in [false, true] {
            let name = |index: u32| format!("v{index}-{streaming}");
            for index in 0..3 {
                api.create(&PostParams::default(), &vault(&name(index), index)).await.expect("created");
            }
            let config = watcher::Config::default();
            let config = if streaming { config.streaming_lists() } else { config };
            let (reader, writer) = reflector::store();
            let stream = reflector(writer, watcher(api.clone(), config)).applied_objects();
            let running = tokio::spawn(stream.for_each(|_| std::future::ready(())));
            reader.wait_until_ready().await.expect("ready");
            assert_eq!(reader.len(), 3);
            api.delete(&name(0), &DeleteParams::default()).await.expect("deleted");
            api.patch(&name(1), &PatchParams::default(), &Patch::Merge(json!({"spec": {"keys": 9}})))
                .await
                .expect("patched");
            api.create(&PostParams::default(), &vault(&name(3), 3)).await.expect("created");
            let settled = || {
                let mut found: Vec<(String, u32)> =
                    reader.state().iter().map(|one| (one.name_any(), one.spec.keys)).collect();
                found.sort();
                found == [(name(1), 9), (name(2), 2), (name(3), 3)]
            };
            while !settled() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            running.abort();
            api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
        }
    })
    .await;
}

/// Each vault gets a Secret of its own and says so.
async fn reconcile(vault: Arc<Vault>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(Client::clone(&client), "default");
    let name = format!("{}-keys", vault.name_any());
    if vault.meta().deletion_timestamp.is_none() && secrets.get_opt(&name).await?.is_none() {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name),
                owner_references: vault.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(error),
        }
    }
    let vaults: Api<Vault> = Api::namespaced(Client::clone(&client), "default");
    let status = json!({"status": {"ready": true, "observedGeneration": vault.metadata.generation}});
    match vaults.patch_status(&vault.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(Action::await_change())
}

/// Runs the controller and a user beside it.
async fn controlled(client: Client) {
    let vaults: Api<Vault> = Api::namespaced(client.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let controller = Controller::new(vaults.clone(), watcher::Config::default())
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(50)), Arc::new(client));
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    for index in 0..5 {
        vaults.create(&PostParams::default(), &vault(&format!("v{index}"), index)).await.expect("created");
    }
    until("all are ready", || async {
        let list = vaults.list(&ListParams::default()).await.expect("a list");
        list.items.iter().all(|one| one.status.as_ref().is_some_and(|status| status.ready))
    })
    .await;
    let first = secrets.get("v0-keys").await.expect("the child");
    secrets.delete("v0-keys", &DeleteParams::default()).await.expect("deleted");
    until("a lost child is made again", || async {
        let child = secrets.get_opt("v0-keys").await.expect("read");
        child.is_some_and(|child| child.uid() != first.uid())
    })
    .await;
    vaults.patch("v1", &PatchParams::default(), &Patch::Merge(json!({"spec": {"keys": 7}}))).await.expect("patched");
    until("the change was seen", || async {
        let one = vaults.get("v1").await.expect("read");
        one.status.is_some_and(|status| status.observed_generation == 2)
    })
    .await;
    let background = DeleteParams::background();
    vaults.delete("v2", &background).await.expect("deleted");
    until("the child goes with its owner", || async { secrets.get_opt("v2-keys").await.expect("read").is_none() })
        .await;
    running.abort();
}

async fn until<F, R>(what: &str, holds: F)
where
    F: Fn() -> R,
    R: Future<Output = bool>,
{
    let end = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_controller_keeps_its_children() {
    over_both(controlled).await;
}

/// The same program when nobody waits for a real clock.
#[tokio::test(start_paused = true)]
async fn a_controller_keeps_its_children_under_paused_time() {
    let server = open().await;
    let start = std::time::Instant::now();
    controlled(client(&server)).await;
    assert!(start.elapsed() < Duration::from_secs(20), "no real time passes but that of the work");
}

/// An election as people write it: whoever's compare-and-swap comes first holds the lease, and only a lapsed one is taken over.
#[tokio::test]
async fn one_of_several_candidates_holds_the_lease() {
    over_both(|client| async move {
        let api: Api<Lease> = Api::namespaced(client, "default");
        let lease = Lease {
            metadata: ObjectMeta { name: Some(String::from("leader")), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { lease_duration_seconds: Some(15), ..LeaseSpec::default() }),
        };
        let free = api.create(&PostParams::default(), &lease).await.expect("created");
        let claims = (0..6).map(|who| {
            let (api, mut mine) = (api.clone(), free.clone());
            async move {
                let spec = mine.spec.get_or_insert_default();
                spec.holder_identity = Some(format!("candidate-{who}"));
                spec.renew_time = Some(MicroTime(Timestamp::UNIX_EPOCH));
                api.replace("leader", &PostParams::default(), &mine).await
            }
        });
        let claims = futures::future::join_all(claims).await;
        let won: Vec<&Lease> = claims.iter().filter_map(|claim| claim.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "one claim succeeds");
        let held = api.get("leader").await.expect("read");
        assert_eq!(held.spec, won[0].spec);
        for claim in claims.iter().filter_map(|claim| claim.as_ref().err()) {
            assert!(matches!(claim, kube::Error::Api(status) if status.is_conflict()), "{claim}");
        }
        let mut renewed = held.clone();
        renewed.spec.get_or_insert_default().lease_transitions = Some(1);
        api.replace("leader", &PostParams::default(), &renewed).await.expect("the holder renews");
        let late = api.replace("leader", &PostParams::default(), &held).await;
        assert!(matches!(late, Err(kube::Error::Api(status)) if status.is_conflict()), "and nobody renews twice");
    })
    .await;
}
