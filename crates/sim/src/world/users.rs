//! What people do, with a client that meets no faults, and how a test waits for what comes of it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use lvault_api::{LogicalVolume, Phase, SnapshotBackupStorage};
use lvault_core::VolumeId;
use serde_json::{Value, json};

use super::{NODE, World, clock};

/// What went wrong, for people.
pub type Said<T> = Result<T, String>;

fn said(what: &str) -> impl Fn(kube::Error) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {error}")
}

fn not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

impl World {
    /// The volumes of the API.
    pub fn volumes(&self) -> Api<LogicalVolume> {
        Api::all(self.client.clone())
    }

    fn storages(&self) -> Api<SnapshotBackupStorage> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object as it is.
    pub async fn create(&self, name: &str, spec: Value) -> Result<LogicalVolume, kube::Error> {
        let object = json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
                            "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.volumes().create(&PostParams::default(), &object).await
    }

    /// Creates a volume.
    pub async fn create_volume(&self, name: &str) -> Said<()> {
        let spec = json!({"name": name, "nodeName": NODE, "size": "10Mi"});
        self.create(name, spec).await.map(drop).map_err(said("create a volume"))
    }

    /// Creates a clone.
    pub async fn create_clone(&self, name: &str, source: &str) -> Said<()> {
        let spec = json!({"name": name, "nodeName": NODE, "size": "10Mi", "source": source, "accessType": "rw"});
        self.create(name, spec).await.map(drop).map_err(said("create a clone"))
    }

    /// Creates an online snapshot.
    pub async fn create_snapshot(&self, name: &str, source: &str) -> Said<()> {
        self.create_snapshot_with(name, source, json!({})).await
    }

    /// Creates an online snapshot with more in its `onlineSnapshot`.
    pub async fn create_snapshot_with(&self, name: &str, source: &str, more: Value) -> Said<()> {
        let mut online = json!({"storage": {"name": "vault"}});
        if let (Value::Object(online), Value::Object(more)) = (&mut online, more) {
            online.extend(more);
        }
        let spec = json!({"name": name, "nodeName": NODE, "size": "10Mi", "source": source, "onlineSnapshot": online});
        self.create(name, spec).await.map(drop).map_err(said("create a snapshot"))
    }

    /// Creates a volume that is filled from a snapshot.
    pub async fn create_restore(&self, name: &str, path: &str, snapshot: &str) -> Said<()> {
        let restore = json!({"storage": {"name": "vault"}, "path": path, "snapshotID": snapshot});
        let spec = json!({"name": name, "nodeName": NODE, "size": "10Mi", "restore": restore});
        self.create(name, spec).await.map(drop).map_err(said("create a restore"))
    }

    /// Creates the storage and its Secret.
    pub async fn create_storage(&self) -> Said<()> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault"},
                            "stringData": {"RESTIC_PASSWORD": "correct horse"}});
        let secret: Secret = serde_json::from_value(secret).map_err(|error| error.to_string())?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), "default");
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(said("create a secret")(error)),
        }
        let storage = json!({"apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage",
                             "metadata": {"name": "vault", "namespace": "default"},
                             "spec": {"storage": {"provider": "local", "local": {"path": "/repository"}}}});
        let storage = serde_json::from_value(storage).map_err(|error| error.to_string())?;
        self.storages().create(&PostParams::default(), &storage).await.map(drop).map_err(said("create a storage"))
    }

    /// Removes the storage, and so gives up what is in it.
    pub async fn delete_storage(&self) -> Said<()> {
        self.shared.with(|inner| inner.storage_was_removed = true);
        match self.storages().delete("vault", &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if not_found(&error) => Ok(()),
            Err(error) => Err(said("delete the storage")(error)),
        }
    }

    /// Deletes an object; one that is not there is deleted.
    pub async fn delete(&self, name: &str) -> Said<()> {
        match self.volumes().delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if not_found(&error) => Ok(()),
            Err(error) => Err(said("delete a volume")(error)),
        }
    }

    /// Changes a spec; an object that is not there is left so.
    pub async fn patch(&self, name: &str, spec: Value) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({"spec": spec}));
        match self.volumes().patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Raises the attempt of a snapshot.
    pub async fn retry(&self, name: &str, attempt: u32) -> Said<()> {
        self.patch(name, json!({"onlineSnapshot": {"attempt": attempt}})).await.map_err(said("raise the attempt"))
    }

    /// Grows a volume.
    pub async fn resize(&self, name: &str, size: &str) -> Said<()> {
        self.patch(name, json!({"size": size})).await.map_err(said("resize"))
    }

    /// An application writes to a volume.
    pub fn write_data(&self, uid: &str) {
        self.shared.with(|inner| {
            if let Ok(id) = VolumeId::parse(uid)
                && let Some(volume) = inner.volumes.get_mut(&id)
                && volume.origin.is_none()
                && !volume.partial
            {
                volume.content += 1;
                let content = volume.content;
                inner.written.insert(id, content);
            }
        });
    }

    /// The object, if it is there.
    pub async fn get(&self, name: &str) -> Said<Option<LogicalVolume>> {
        self.volumes().get_opt(name).await.map_err(said("read a volume"))
    }

    /// Waits until this holds of the object.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&LogicalVolume) -> bool) -> Said<LogicalVolume> {
        let limit = clock::elapsed() + Duration::from_secs(3600);
        loop {
            let object = self.get(name).await?;
            if let Some(object) = object.filter(|object| holds(object)) {
                return Ok(object);
            }
            self.lawful()?;
            if clock::elapsed() > limit {
                return Err(format!("I7: {name} is not {what} within an hour"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until a volume is published.
    pub async fn until_ready(&self, name: &str) -> Said<LogicalVolume> {
        self.until(name, "published", |object| object.status.as_ref().is_some_and(|status| status.volume_id.is_some()))
            .await
    }

    /// Waits for a phase of an online operation.
    pub async fn until_phase(&self, name: &str, wanted: &[Phase]) -> Said<LogicalVolume> {
        self.until(name, &format!("in {wanted:?}"), |object| phase(object).is_some_and(|phase| wanted.contains(&phase)))
            .await
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, name: &str) -> Said<()> {
        let limit = clock::elapsed() + Duration::from_secs(3600);
        while self.get(name).await?.is_some() {
            self.lawful()?;
            if clock::elapsed() > limit {
                return Err(format!("I7: {name} is not gone within an hour"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// What there is, without what may differ between two runs of the same story: ids, versions, times, losses.
    ///
    /// # Errors
    /// When the API does not answer, or something is left that should not be.
    pub async fn summary(&self) -> Said<String> {
        let objects = self.volumes().list(&ListParams::default()).await.map_err(said("list volumes"))?;
        let storages = self.storages().list(&ListParams::default()).await.map_err(said("list storages"))?;
        let leases: Api<Lease> = Api::all(self.client.clone());
        let leases = leases.list(&ListParams::default()).await.map_err(said("list leases"))?;
        let mut lines = Vec::new();
        for object in &objects.items {
            let status = object.status.clone().unwrap_or_default();
            let transfer = status.online_snapshot.as_ref().or(status.restore.as_ref());
            let transfer = transfer.map(|t| (t.phase, t.attempt, t.snapshot_id.is_some()));
            let (phase, size) = (&status.phase, status.current_size.as_ref().map(|size| &size.0));
            let uid = object.uid().unwrap_or_default();
            let (volume, commits) = self.shared.with(|inner| {
                let volume = VolumeId::parse(uid.as_str()).ok().and_then(|id| inner.volumes.get(&id).cloned());
                let commits = inner.repositories.values().flatten().filter(|commit| commit.uid == uid).count();
                (volume.map(|volume| (volume.size, volume.attached, volume.partial)), commits)
            });
            let published = status.volume_id.is_some();
            let name = object.name_any();
            lines
                .push(format!("{name}: {phase:?} {transfer:?} {published} {size:?} node {volume:?} commits {commits}"));
        }
        for storage in &storages.items {
            lines.push(format!("storage: {:?}", storage.status.as_ref().map(|status| status.phase)));
        }
        let (volumes, folders) = self.shared.with(|inner| (inner.volumes.len(), inner.folders.len()));
        lines.push(format!("{volumes} volumes, {folders} executors, {} leases", leases.items.len()));
        if folders > 0 || !leases.items.is_empty() {
            return Err(format!("I5: something of executors is left at rest: {}", lines.join("; ")));
        }
        Ok(lines.join("\n"))
    }
}

/// The phase of an object's online operation.
pub fn phase(object: &LogicalVolume) -> Option<Phase> {
    let status = object.status.as_ref()?;
    status.online_snapshot.as_ref().or(status.restore.as_ref()).map(|transfer| transfer.phase)
}

/// The snapshot that an object reports, and the path of its repository.
pub fn reported(object: &LogicalVolume) -> Option<(String, String)> {
    let transfer = object.status.as_ref()?.online_snapshot.as_ref()?;
    Some((transfer.path.clone()?, transfer.snapshot_id.clone()?))
}
