//! One pass over one storage: read, examine, decide, write.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use lvault_api::conditions::{self, Said};
use lvault_api::{SnapshotBackupStorage, SnapshotBackupStorageStatus, StoragePhase};
use serde_json::{Value, json};

use super::examine::Examiner;
use super::{Decision, Finding, Known, StorageCheck, Verdict, decide};
use crate::api::{Answer, ask, resource};
use crate::events::{Told, tell};
use crate::queue::{After, Key};
use crate::request::{CHECK_ANSWERED, open_request};
use crate::{CHECK_REQUESTED, Config};

/// How often a pass reads again after a conflict before it lets the others have their turn.
const READS: usize = 5;

/// What of a storage a pass depends on. Its own status writes and answers are not part of it, so they wake nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    uid: Option<String>,
    generation: Option<i64>,
    requested: Option<String>,
}

/// The trigger of a storage.
pub(crate) fn trigger(object: &DynamicObject) -> Trigger {
    let requested = object.annotations().get(CHECK_REQUESTED).cloned();
    Trigger { uid: object.uid(), generation: object.metadata.generation, requested }
}

/// The passes over all storages.
pub(crate) struct Storages {
    client: Client,
    examiner: Examiner,
    api_timeout: Duration,
    clock: fn() -> Timestamp,
}

impl Storages {
    pub(crate) fn new(client: Client, check: Arc<dyn StorageCheck>, config: &Config) -> Self {
        let examiner = Examiner::new(client.clone(), check, config);
        Self { client, examiner, api_timeout: config.api_timeout, clock: config.clock }
    }

    /// Finds out whether a storage can be used and brings its status in line. Idempotent; a crash in the middle leaves the
    /// old status or the new one.
    pub(crate) async fn reconcile(&self, key: Key) -> After {
        let storages: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource());
        let mut examined: Option<(Trigger, Finding)> = None;
        for _ in 0..READS {
            let object = match ask(self.api_timeout, storages.get(&key.name)).await {
                Answer::Done(object) => object,
                // The watch reports what is gone; until then nothing is wrong with it.
                Answer::NotFound => return After::Settled,
                Answer::Conflict => continue,
                Answer::Refused(error) => return self.give_up(&key, &error.to_string()),
                Answer::Unknown(why) => return self.give_up(&key, &why),
            };
            if object.metadata.deletion_timestamp.is_some() {
                return After::Settled;
            }
            let finding = match examined.take() {
                // Somebody wrote something else meanwhile; what was found out still holds.
                Some((of, finding)) if of == trigger(&object) => finding,
                Some(_) | None => self.examiner.examine(&object).await,
            };
            match self.settle(&storages, &object, &finding).await {
                Answer::Done(()) => return after(&finding),
                Answer::NotFound => return After::Settled,
                Answer::Conflict => examined = Some((trigger(&object), finding)),
                Answer::Refused(error) => return self.give_up(&key, &error.to_string()),
                Answer::Unknown(why) => return self.give_up(&key, &why),
            }
        }
        self.give_up(&key, "others write to it all the time")
    }

    /// Writes what the finding means, and then the answer to whoever asked.
    async fn settle(&self, storages: &Api<DynamicObject>, object: &DynamicObject, finding: &Finding) -> Answer<()> {
        let mut written = None;
        match decide(&known(object), finding) {
            Decision::Leave => {}
            Decision::Write(verdict) => {
                log(object, &verdict);
                let change = status_patch(object, &verdict, (self.clock)());
                let params = PatchParams::default();
                let patch = Patch::Merge(&change);
                match ask(self.api_timeout, storages.patch_status(&object.name_any(), &params, &patch)).await {
                    Answer::Done(newer) => {
                        written = Some(newer);
                        self.tell(object, &verdict).await;
                    }
                    Answer::NotFound => return Answer::NotFound,
                    Answer::Conflict => return Answer::Conflict,
                    Answer::Refused(error) => return Answer::Refused(error),
                    Answer::Unknown(why) => return Answer::Unknown(why),
                }
            }
        }
        let Some(request) = open_request(object) else { return Answer::Done(()) };
        let checked = match finding {
            Finding::Usable | Finding::Unusable(_) => true,
            Finding::Unknown(_) | Finding::NotWanted => false,
        };
        if !checked {
            return Answer::Done(());
        }
        let change = answer_patch(written.as_ref().unwrap_or(object), request);
        let params = PatchParams::default();
        match ask(self.api_timeout, storages.patch(&object.name_any(), &params, &Patch::Merge(&change))).await {
            Answer::Done(_) => Answer::Done(()),
            Answer::NotFound => Answer::NotFound,
            Answer::Conflict => Answer::Conflict,
            Answer::Refused(error) => Answer::Refused(error),
            Answer::Unknown(why) => Answer::Unknown(why),
        }
    }

    /// Tells what has changed; the answer to somebody who asked is no news when it is the same.
    async fn tell(&self, object: &DynamicObject, verdict: &Verdict) {
        let before = known(object);
        if before.phase == Some(verdict.phase) && before.message == verdict.message {
            return;
        }
        let (warning, reason, usual) = match verdict.phase {
            StoragePhase::Ready => (false, "StorageReady", "it can be used"),
            StoragePhase::Pending => (false, "StoragePending", "it is not checked yet"),
            StoragePhase::Error => (true, "StorageError", "it cannot be used"),
        };
        let message = verdict.message.as_deref().unwrap_or(usual);
        let about = ObjectReference {
            api_version: Some(SnapshotBackupStorage::api_version(&()).into_owned()),
            kind: Some(SnapshotBackupStorage::kind(&()).into_owned()),
            name: object.metadata.name.clone(),
            namespace: object.metadata.namespace.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        tell(&self.client, about, Told { warning, reason, message }, (self.clock)()).await;
    }

    fn give_up(&self, key: &Key, why: &str) -> After {
        tracing::warn!(storage = %key, why, "the status of the storage could not be brought in line; trying again");
        After::Unsettled
    }
}

fn after(finding: &Finding) -> After {
    match finding {
        Finding::Usable | Finding::NotWanted => After::Settled,
        Finding::Unusable(_) | Finding::Unknown(_) => After::Unsettled,
    }
}

/// A status that does not parse says nothing; the next write replaces it.
fn status(object: &DynamicObject) -> SnapshotBackupStorageStatus {
    let status = object.data.get("status").cloned().unwrap_or(Value::Null);
    serde_json::from_value(status).unwrap_or_default()
}

fn known(object: &DynamicObject) -> Known {
    let status = status(object);
    Known {
        generation: object.metadata.generation,
        observed: status.observed_generation,
        phase: status.phase,
        message: status.message,
        asked: open_request(object).is_some(),
    }
}

fn log(object: &DynamicObject, verdict: &Verdict) {
    let Verdict { phase, message, observed: _, checked: _ } = verdict;
    let storage = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let message = message.as_deref().unwrap_or_default();
    match phase {
        StoragePhase::Ready => tracing::info!(storage, "the storage can be used"),
        StoragePhase::Pending => tracing::info!(storage, message, "the storage is not checked yet"),
        StoragePhase::Error => tracing::warn!(storage, message, "the storage cannot be used"),
    }
}

/// The precondition of every write: this object, as it was read.
fn precondition(object: &DynamicObject) -> Value {
    json!({"resourceVersion": object.resource_version(), "uid": object.uid()})
}

fn status_patch(object: &DynamicObject, verdict: &Verdict, now: Timestamp) -> Value {
    let Verdict { phase, message, observed, checked } = verdict;
    let (holds, reason) = match phase {
        StoragePhase::Ready => (true, "Usable"),
        StoragePhase::Pending => (false, "NotChecked"),
        StoragePhase::Error => (false, "NotUsable"),
    };
    let mut conditions = status(object).conditions;
    let text = message.clone().unwrap_or_default();
    let said = Said { kind: conditions::READY, holds, reason: reason.to_owned(), message: text };
    conditions::set(&mut conditions, said, *observed, now);
    let mut status =
        json!({"phase": phase, "message": message, "observedGeneration": observed, "conditions": conditions});
    if *checked {
        status["lastChecked"] = json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    }
    json!({"metadata": precondition(object), "status": status})
}

fn answer_patch(object: &DynamicObject, request: &str) -> Value {
    let mut metadata = precondition(object);
    metadata["annotations"] = json!({CHECK_ANSWERED: request});
    json!({"metadata": metadata})
}
