//! What a [`World`]'s API is asked, and what is waited for there.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use lvault_api::{LogicalVolume, Phase, TransferStatus};
use serde_json::{Value, json};

use crate::api;
use crate::history::transfer;
use crate::process::until;
use crate::world::World;

impl World {
    /// Runs requests of a client of its own.
    pub(crate) fn ask<T, F: Future<Output = T>>(&self, request: impl FnOnce(Client) -> F) -> T {
        self.runtime.block_on(async {
            let client = api::client(&self.state.join("kubeconfig")).await.expect("a kubeconfig");
            request(client).await
        })
    }

    /// One object, as it stands now.
    pub(crate) fn get(&self, name: &str) -> Option<LogicalVolume> {
        self.ask(async |client| Api::all(client).get_opt(name).await.expect("an answer"))
    }

    /// Creates an object as it is written; answers with its uid.
    pub(crate) fn create(&self, object: Value) -> String {
        let object: LogicalVolume = serde_json::from_value(object).expect("a LogicalVolume");
        let made = self.ask(async |client| Api::all(client).create(&PostParams::default(), &object).await);
        let made = made.expect("created");
        self.wait(&made.name_any(), "it is seen", |_| true);
        made.uid().unwrap()
    }

    /// The version of an object.
    pub(crate) fn version(&self, name: &str) -> String {
        self.get(name).and_then(|object| object.resource_version()).expect("it is there")
    }

    /// Checks for some passes of the agent (it looks at everything once a second) that nobody writes an object.
    pub(crate) fn assert_left_alone(&self, name: &str, version: &str) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(2500) {
            assert_eq!(self.version(name), version, "{name} was written\n{}", self.story());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes a merge patch to an object.
    pub(crate) fn patch(&self, name: &str, patch: &Value) -> LogicalVolume {
        let written = self.ask(async |client| {
            let api: Api<LogicalVolume> = Api::all(client);
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
        });
        written.expect("patched")
    }

    /// Writes a merge patch to an object's status.
    pub(crate) fn patch_status(&self, name: &str, patch: &Value) -> Result<LogicalVolume, kube::Error> {
        self.ask(async |client| {
            let api: Api<LogicalVolume> = Api::all(client);
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await
        })
    }

    /// Touches an object as its users do: a change that means nothing to lvault.
    pub(crate) fn touch(&self, name: &str, value: &str) -> LogicalVolume {
        self.patch(name, &json!({"metadata": {"annotations": {"example.com/touched": value}}}))
    }

    /// Deletes an object and waits for nothing.
    pub(crate) fn delete(&self, name: &str) {
        let deleted = self.ask(async |client| {
            let api: Api<LogicalVolume> = Api::all(client);
            api.delete(name, &DeleteParams::default()).await.map(drop)
        });
        deleted.expect("deleted");
    }

    /// The uid of an object, once the watch has shown it.
    pub(crate) fn uid(&self, name: &str) -> String {
        self.wait(name, "it is seen", |_| true).uid().unwrap()
    }

    /// Waits for a version of an object.
    pub(crate) fn wait(&self, name: &str, what: &str, wanted: impl Fn(&LogicalVolume) -> bool) -> LogicalVolume {
        let found = self.history.wait(what, name, |seen| seen.filter(|seen| wanted(seen)).cloned());
        found.unwrap_or_else(|late| panic!("{late}\n{}", self.story()))
    }

    /// Waits for a phase of an object's operation. Another end than the one waited for fails at once.
    pub(crate) fn phase(&self, name: &str, attempt: i32, phase: Phase) -> TransferStatus {
        let found = self.wait(name, &format!("attempt {attempt} is {phase:?}"), |seen| {
            transfer(seen).is_some_and(|transfer| {
                let ended = [Phase::Succeeded, Phase::Failed].contains(&transfer.phase);
                transfer.attempt == attempt && (transfer.phase == phase || ended)
            })
        });
        let found = transfer(&found).unwrap();
        assert_eq!(found.phase, phase, "{found:?}\n{}", self.story());
        found
    }

    /// Waits until an attempt has ended, however.
    pub(crate) fn ended(&self, name: &str, attempt: i32) -> TransferStatus {
        let ended = |seen: &LogicalVolume| {
            transfer(seen)
                .filter(|now| now.attempt == attempt && [Phase::Succeeded, Phase::Failed].contains(&now.phase))
        };
        let found = self.wait(name, &format!("attempt {attempt} ends"), |seen| ended(seen).is_some());
        ended(&found).unwrap()
    }

    /// Waits until an object is gone.
    pub(crate) fn gone(&self, name: &str) {
        until(&format!("{name} is gone\n{}", self.story()), || self.get(name).is_none().then_some(()));
    }
}
