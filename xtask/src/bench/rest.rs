//! What lvault costs when it has nothing to do but to watch over many finished snapshots.
//!
//! The objects are written into the API's file while no agent runs, through the phases that the transition table wants. The
//! first start afterwards brings their summaries up to date; what is measured is a later start, and the rest after it.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lvault_api::keys::FINALIZER;
use lvault_api::{LogicalVolume, Phase};
use lvault_apiserver::{ApiServer, Config};
use serde_json::{Value, json};

use super::node::{self, NODE, Node};
use super::{Settings, io, say};

const WINDOW: Duration = Duration::from_secs(60);
/// Nothing happens when so little processor time is taken in so long a time.
const STILL: (Duration, f64) = (Duration::from_secs(3), 0.02);
const AT_ONCE: usize = 16;

/// Measures a start, a minute at rest, and a minute in which everything is looked at again every 20 seconds.
pub(crate) fn measure(settings: &Settings, scratch: &Path) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(io("a runtime"))?;
    let mut node = Node::new(settings, scratch.join("node"))?;
    node.start("10m")?;
    node.fill()?;
    node.stop()?;
    let filled = Instant::now();
    runtime.block_on(write(&node, settings.objects))?;
    let filled = filled.elapsed().as_secs_f64();
    let count = settings.objects;
    say(&format!("{count} finished snapshots of one volume, written in {filled:.0} s; engine {}\n", node.engine()));
    say("| what | seconds | CPU of `lvault up` (s) | memory (MiB) | largest (MiB) | API writes |");
    say("|---|---:|---:|---:|---:|---:|");
    let steps = [
        ("first start, until all is reconciled", "10m", false),
        ("later start, until all is reconciled", "10m", false),
        ("at rest", "10m", true),
        ("at rest, everything looked at again every 20 s", "20s", true),
    ];
    for (what, resync, rest) in steps {
        if !rest || resync != "10m" {
            node.stop()?;
            let before = runtime.block_on(revision_at_rest(&node))?;
            node.start(resync)?;
            let took = settle(&mut node)?;
            let writes = runtime.block_on(revision(&node))?.saturating_sub(before);
            if !rest {
                row(what, took, node.cpu()?, &node, &writes.to_string())?;
                continue;
            }
        }
        let (before, cpu) = (runtime.block_on(revision(&node))?, node.cpu()?);
        std::thread::sleep(WINDOW);
        let cpu = node.cpu()? - cpu;
        let writes = runtime.block_on(revision(&node))?.saturating_sub(before);
        row(what, WINDOW.as_secs_f64(), cpu, &node, &writes.to_string())?;
    }
    runtime.block_on(prove(&node, count))?;
    node.remove()
}

/// That nothing was written means something only if all objects were there and a write would have been seen.
async fn prove(node: &Node, count: usize) -> Result<(), String> {
    let volumes: Api<LogicalVolume> = Api::all(node.client().await?);
    let failed = |e: kube::Error| format!("cannot look at the snapshots: {e}");
    let all = volumes.list(&ListParams::default()).await.map_err(failed)?;
    let succeeded = all.iter().filter_map(|volume| volume.status.as_ref()?.online_snapshot.as_ref());
    let succeeded = succeeded.filter(|transfer| transfer.phase == Phase::Succeeded).count();
    let before = newest(&volumes).await?;
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"bench": "touched"}}}));
    volumes.patch("snapshot-00000", &PatchParams::default(), &touch).await.map_err(failed)?;
    let after = newest(&volumes).await?;
    if succeeded == count && after > before {
        Ok(())
    } else {
        Err(format!(
            "{succeeded} of {count} snapshots are finished; a write took the revision from {before} to {after}"
        ))
    }
}

fn row(what: &str, seconds: f64, cpu: f64, node: &Node, writes: &str) -> Result<(), String> {
    let (now, most) = node.memory()?;
    say(&format!("| {what} | {seconds:.1} | {cpu:.2} | {now:.0} | {most:.0} | {writes} |"));
    Ok(())
}

/// Waits until `lvault up` is still; answers how long that took, without the stillness itself.
fn settle(node: &mut Node) -> Result<f64, String> {
    let since = Instant::now();
    let (mut cpu, mut busy) = (0.0, since);
    let pid = node.pid()?;
    node.until("lvault has nothing left to do", Duration::from_millis(100), || {
        let now = node::cpu(pid)?;
        if now - cpu > STILL.1 {
            (cpu, busy) = (now, Instant::now());
        }
        Ok((busy.elapsed() > STILL.0).then(|| busy.duration_since(since).as_secs_f64()))
    })
}

/// The revision of the whole store, which every write raises, as the running lvault says it.
async fn revision(node: &Node) -> Result<u64, String> {
    newest(&Api::all(node.client().await?)).await
}

/// The same, while no lvault runs.
async fn revision_at_rest(node: &Node) -> Result<u64, String> {
    let (server, client) = open(node).await?;
    let newest = newest(&Api::all(client)).await;
    server.close().await;
    newest
}

async fn newest(volumes: &Api<LogicalVolume>) -> Result<u64, String> {
    let list = volumes.list_metadata(&ListParams::default().limit(1)).await;
    let list = list.map_err(|e| format!("cannot list volumes: {e}"))?;
    let revision = list.metadata.resource_version.unwrap_or_default();
    revision.parse().map_err(|_| format!("the resourceVersion '{revision}' is no number"))
}

async fn open(node: &Node) -> Result<(ApiServer, Client), String> {
    let config = Config::in_file(node.state().join("state.redb"), lvault_api::crds::all());
    let server = ApiServer::open(config).await.map_err(|e| format!("cannot open the API's file: {e}"))?;
    let client = Client::new(server.service(), "default");
    Ok((server, client))
}

async fn write(node: &Node, count: usize) -> Result<(), String> {
    let (server, client) = open(node).await?;
    let volumes: Api<LogicalVolume> = Api::all(client);
    let all = stream::iter(0..count).map(|number| finished(&volumes, number)).buffer_unordered(AT_ONCE);
    let done: Result<(), kube::Error> = all.try_collect().await;
    server.close().await;
    done.map_err(|e| format!("cannot write a finished snapshot: {e}"))
}

async fn finished(volumes: &Api<LogicalVolume>, number: usize) -> Result<(), kube::Error> {
    let name = format!("snapshot-{number:05}");
    let object = serde_json::from_value(snapshot(&name)).map_err(kube::Error::SerdeError)?;
    volumes.create(&PostParams::default(), &object).await?;
    for status in phases(&name, number) {
        let patch = Patch::Merge(json!({"status": status}));
        volumes.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

fn snapshot(name: &str) -> Value {
    json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
        "metadata": {"name": name, "finalizers": [FINALIZER]},
        "spec": {
            "name": name, "nodeName": NODE, "size": "256Mi", "source": "data", "accessType": "ro",
            "onlineSnapshot": {"storage": {"name": "main", "namespace": "default"}},
        },
    })
}

/// What an agent and an executor write, one after the other.
fn phases(name: &str, number: usize) -> [Value; 3] {
    let transfer = |phase: &str, more: Value| {
        let mut transfer = json!({"operation": "Backup", "phase": phase, "attempt": 1});
        if let (Some(all), Some(more)) = (transfer.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        json!({"phase": phase, "onlineSnapshot": transfer})
    };
    let executor = json!({"name": format!("backup-{name}-1-1.bench"), "epoch": 1, "launch": 1});
    let done = json!({
        "executor": executor, "snapshotID": format!("{number:064x}"), "path": "default/data", "version": "0.1.0",
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:10Z", "duration": "10s",
        "message": "a finished snapshot of a benchmark",
        "progress": {
            "totalBytes": 1_000_000, "bytesDone": 1_000_000, "totalFiles": 10, "filesDone": 10,
            "percentage": "100%", "bytesPerSecond": 100_000,
        },
    });
    [
        transfer("Pending", json!({})),
        transfer("Running", json!({"executor": executor, "startTime": "2026-01-01T00:00:00Z"})),
        transfer("Succeeded", done),
    ]
}
