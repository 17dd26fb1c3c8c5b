//! The helpers that controllers are made of, unmodified: finalizer, event recorder, typed kinds, metadata watches.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Event, Namespace, ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event as Report, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizing, finalizer};
use kube::runtime::watcher;
use serde_json::json;

use crate::setup::{Http, SECRETS, THINGS, bounded, over_both, thing, thing_resource};

#[tokio::test]
async fn the_finalizer_helper_holds_and_releases_an_object() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        let api: Api<DynamicObject> = Api::all_with(http.0.clone(), &thing_resource());
        let mut steps = Vec::new();
        for _ in 0..4 {
            let Some(object) = api.get_opt("a").await.expect("read") else {
                break;
            };
            let step = finalizer(&api, "example.com/hold", Arc::new(object), |event| {
                let step = match event {
                    Finalizing::Apply(_) => "apply",
                    Finalizing::Cleanup(_) => "cleanup",
                };
                steps.push(step);
                async { Ok::<_, std::convert::Infallible>(Action::await_change()) }
            });
            step.await.expect("a step");
            if steps.last() == Some(&"apply") {
                api.delete("a", &DeleteParams::default()).await.expect("marked");
            }
        }
        assert_eq!(steps, ["apply", "cleanup"]);
        assert!(api.get_opt("a").await.expect("read").is_none());
    })
    .await;
}

#[tokio::test]
async fn the_event_recorder_reports_and_repeats() {
    over_both(|http: Http| async move {
        let reporter = Reporter { controller: String::from("tests"), instance: Some(String::from("one")) };
        let recorder = Recorder::new(http.0.clone(), reporter);
        let about = ObjectReference {
            api_version: Some(String::from("example.com/v1")),
            kind: Some(String::from("Thing")),
            name: Some(String::from("a")),
            ..ObjectReference::default()
        };
        let report = Report {
            type_: EventType::Warning,
            reason: String::from("Full"),
            note: Some(String::from("no room")),
            action: String::from("Fill"),
            secondary: None,
        };
        for _ in 0..3 {
            recorder.publish(&report, &about).await.expect("reported");
        }
        let events: Api<Event> = Api::all(http.0.clone());
        let found =
            events.list(&ListParams::default().fields("involvedObject.name=a,reason=Full")).await.expect("a list");
        assert_eq!(found.items.len(), 1, "repetitions are counted, not added");
        let event = &found.items[0];
        assert_eq!(event.message.as_deref(), Some("no room"));
        assert_eq!(event.reporting_component.as_deref(), Some("tests"));
        assert_eq!(event.series.as_ref().and_then(|series| series.count), Some(3));
    })
    .await;
}

#[tokio::test]
async fn typed_kinds_go_there_and_back() {
    over_both(|http: Http| async move {
        let namespaces: Api<Namespace> = Api::all(http.0.clone());
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(String::from("n")), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        namespaces.create(&PostParams::default(), &namespace).await.expect("created");
        let leases: Api<Lease> = Api::namespaced(http.0.clone(), "n");
        let mut lease = Lease {
            metadata: ObjectMeta { name: Some(String::from("l")), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { holder_identity: Some(String::from("one")), ..LeaseSpec::default() }),
        };
        lease = leases.create(&PostParams::default(), &lease).await.expect("created");
        let taken = lease.clone();
        lease.spec.get_or_insert_default().lease_duration_seconds = Some(15);
        leases.replace("l", &PostParams::default(), &lease).await.expect("renewed");
        let late = leases.replace("l", &PostParams::default(), &taken).await.expect_err("stale");
        assert!(matches!(late, kube::Error::Api(status) if status.is_conflict()));

        let secrets: Api<Secret> = Api::namespaced(http.0.clone(), "n");
        let secret = Secret {
            metadata: ObjectMeta { generate_name: Some(String::from("s-")), ..ObjectMeta::default() },
            string_data: Some([(String::from("password"), String::from("open"))].into()),
            ..Secret::default()
        };
        let made = secrets.create(&PostParams::default(), &secret).await.expect("created");
        assert_eq!(made.data.as_ref().expect("data")["password"].0, b"open");
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        secrets.patch(&made.name_any(), &PatchParams::default(), &patch).await.expect("patched");
        let gone = secrets.delete_collection(&DeleteParams::default(), &ListParams::default().labels("a=b")).await;
        assert_eq!(gone.expect("deleted").left().map(|list| list.items.len()), Some(1));
        let missing = secrets.get(&made.name_any()).await.expect_err("gone");
        assert!(matches!(missing, kube::Error::Api(status) if status.is_not_found()));
    })
    .await;
}

#[tokio::test]
async fn metadata_alone_can_be_watched() {
    over_both(|http: Http| async move {
        let secret = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "YQ=="}});
        http.post(SECRETS, &secret("a")).await.expect(201);
        let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(http.0.clone(), "default");
        let mut stream = watcher(api, watcher::Config::default()).boxed();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match bounded("an event", stream.next()).await.expect("no end").expect("an event") {
                watcher::Event::InitApply(object) | watcher::Event::Apply(object) => seen.push(object.name_any()),
                watcher::Event::InitDone => drop(http.post(SECRETS, &secret("b")).await.expect(201)),
                watcher::Event::Init | watcher::Event::Delete(_) => {}
            }
        }
        assert_eq!(seen, ["a", "b"]);
    })
    .await;
}
