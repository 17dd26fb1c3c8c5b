//! What an executor's pod looks like: bound to its node and its volume, and able to do its one piece of work only.
//!
//! What holds here: no password stands in it; it is not privileged; of the host it sees the folder it works on, and the
//! folder of a local storage where the operator allows that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use lvault_api::keys;
use lvault_api::task::{MountedFolder, SECRET_VARIABLE, TASK_VARIABLE, Task, Work};
use lvault_core::{Job, VolumeId};
use serde_json::{Value, json};

use crate::launcher::LaunchError;

/// Where the storage's Secret is mounted.
const SECRET_FOLDER: &str = "/run/lvault/secret";

/// What all executor pods of a node agent have in common.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// The node they are bound to.
    pub node_name: String,
    /// Their image: the agent's own.
    pub image: String,
    /// When it is pulled: as the agent's own (`imagePullPolicy`).
    pub pull_policy: Option<String>,
    /// The names of the Secrets it is pulled with, as the agent's own.
    pub pull_secrets: Vec<String>,
    /// Their ServiceAccount, which has to exist in the storage's namespace.
    pub service_account: String,
    /// What they may use.
    pub resources: ResourceRequirements,
    /// How long one may take until its program runs, before it counts as lost.
    pub start_deadline: Duration,
    /// The folders of the host in or below which local storages may be.
    pub local_storages: Vec<PathBuf>,
}

/// The name of the pod of one executor.
pub(super) fn name(id: &VolumeId, job: Job, restore: bool) -> String {
    match job {
        Job::Copy { attempt, launch } if restore => format!("restore-{id}-{attempt}-{launch}"),
        Job::Copy { attempt, launch } => format!("backup-{id}-{attempt}-{launch}"),
        Job::Forget => format!("delete-{id}"),
    }
}

/// The pod that carries out a task.
pub(super) fn pod(settings: &PodSettings, id: &VolumeId, job: Job, task: &Task) -> Result<Pod, LaunchError> {
    let impossible = |e: &dyn std::fmt::Display| LaunchError::Impossible(e.to_string());
    let restore = matches!(task.work, Work::Restore { .. });
    let (operation, capabilities): (&str, &[&str]) = match task.work {
        // Any file can be read, and no other be written.
        Work::Backup { .. } => ("backup", &["DAC_READ_SEARCH"]),
        // Files of any owner, mode and kind can be made.
        Work::Restore { .. } => ("restore", &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"]),
        Work::Forget => ("delete", &[]),
    };
    let mut labels = json!({
        keys::LABEL_EXECUTOR: "true",
        keys::LABEL_VOLUME: keys::label_value(&task.volume),
        keys::LABEL_OPERATION: operation,
        keys::LABEL_UID: id.as_str(),
    });
    if let Job::Copy { attempt, launch } = job {
        labels[keys::LABEL_ATTEMPT] = json!(attempt.to_string());
        labels[keys::LABEL_LAUNCH] = json!(launch.to_string());
    }
    let text = task.without_secrets().map_err(|e| impossible(&e))?;
    let (volumes, mounts) = volumes(settings, task)?;
    let container = json!({
        "name": "executor",
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "args": ["executor"],
        "env": [
            {"name": TASK_VARIABLE, "value": text},
            {"name": SECRET_VARIABLE, "value": SECRET_FOLDER},
            {"name": "TMPDIR", "value": "/tmp"},
        ],
        "resources": settings.resources,
        "volumeMounts": mounts,
        // The last lines of the log say why it ended.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": capabilities},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    let pull_secrets: Vec<Value> = settings.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    let pod = json!({
        "metadata": {
            "name": name(id, job, restore),
            "namespace": task.storage.namespace,
            "labels": labels,
            "finalizers": [keys::POD_FINALIZER],
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION),
                "kind": "LogicalVolume",
                "name": task.volume,
                "uid": task.uid,
                // Without a controller, `kubectl drain` would refuse the node.
                "controller": true,
            }],
        },
        "spec": {
            "nodeName": settings.node_name,
            "restartPolicy": "Never",
            "serviceAccountName": settings.service_account,
            "enableServiceLinks": false,
            // What it has to say is said when it is said; a copy that was interrupted begins again where it was.
            "terminationGracePeriodSeconds": 2,
            // The volume is on this node, in whatever state the node is.
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": pull_secrets,
            "containers": [container],
            "volumes": volumes,
        },
    });
    serde_json::from_value(pod).map_err(|e| impossible(&e))
}

fn volumes(settings: &PodSettings, task: &Task) -> Result<(Vec<Value>, Vec<Value>), LaunchError> {
    let secret = task.storage_spec.secret_name(&task.storage.name);
    let mut volumes = vec![
        json!({"name": "tmp", "emptyDir": {}}),
        json!({"name": "secret", "secret": {"secretName": secret, "defaultMode": 0o400}}),
    ];
    let mut mounts = vec![
        json!({"name": "tmp", "mountPath": "/tmp"}),
        json!({"name": "secret", "mountPath": SECRET_FOLDER, "readOnly": true}),
    ];
    let mut host = |name: &str, path: &Path, read_only: bool, kind: &str| {
        volumes.push(json!({"name": name, "hostPath": {"path": path, "type": kind}}));
        // What is mounted there later than the pod starts is seen too, and nothing goes the other way.
        let mount =
            json!({"name": name, "mountPath": path, "readOnly": read_only, "mountPropagation": "HostToContainer"});
        mounts.push(mount);
    };
    match &task.work {
        Work::Backup { folder: MountedFolder { path: Some(path), .. }, .. } => host("data", path, true, "Directory"),
        Work::Restore { folder: MountedFolder { path: Some(path), .. }, .. } => host("data", path, false, "Directory"),
        Work::Backup { folder: MountedFolder { path: None, .. }, .. }
        | Work::Restore { folder: MountedFolder { path: None, .. }, .. }
        | Work::Forget => {}
    }
    if let Ok(folder) = task.storage_spec.local_folder() {
        let folder = Path::new(folder);
        if !settings.local_storages.iter().any(|allowed| folder.starts_with(allowed)) {
            return Err(LaunchError::Impossible(format!(
                "the storage {} is the folder {} of the node, which executors may not write to: start `lvault node` with \
                 --local-storage for it, or use a storage that is elsewhere",
                task.storage,
                folder.display()
            )));
        }
        host("repositories", folder, false, "Directory");
    }
    Ok((volumes, mounts))
}
