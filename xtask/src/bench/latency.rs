//! How long it takes from asking for a snapshot until it is cut: until the engine has it, finished and durable.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::PostParams;
use lvault_api::LogicalVolume;
use serde_json::json;

use super::node::{NODE, Node, names};
use super::run::median;
use super::{Settings, io, say};

const MIB: usize = 1 << 20;
const DATA: usize = 64;

/// Measures snapshots that are asked for by the command line, and by the API alone, in turns.
pub(crate) fn measure(settings: &Settings, scratch: &Path) -> Result<(), String> {
    let mut node = Node::new(settings, scratch.join("node"))?;
    node.start("10m")?;
    node.fill()?;
    let path = node.program().args(["volume", "path", "data"]).run()?;
    for number in 0..DATA {
        // Compressible, and not the same twice.
        let content = format!("{number:08}").repeat(MIB / 8);
        fs::write(PathBuf::from(path.trim()).join(format!("file-{number}")), content)
            .map_err(io("filling a volume"))?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(io("a runtime"))?;
    let client = runtime.block_on(node.client())?;
    let volumes: Api<LogicalVolume> = Api::all(client);
    let (mut by_command, mut by_api) = (Vec::new(), Vec::new());
    for number in 0..settings.snapshots {
        let name = format!("command-{number}");
        let create = node.program().args(["snapshot", "create", &name, "--source", "data", "--storage", "main"]);
        by_command.push(time(&mut node, &name, move || create.run().map(drop))?);

        let name = format!("api-{number}");
        let wanted = wanted(&name)?;
        let (volumes, handle) = (volumes.clone(), runtime.handle().clone());
        let create = move || {
            let created = handle.block_on(volumes.create(&PostParams::default(), &wanted));
            created.map(drop).map_err(|e| format!("cannot create a snapshot: {e}"))
        };
        by_api.push(time(&mut node, &name, create)?);
    }
    say(&format!("snapshot latency, asked -> cut; engine {}, {DATA} MiB just written\n", node.engine()));
    say("| asked by | snapshots | median (ms) | max (ms) |\n|---|---:|---:|---:|");
    for (who, times) in
        [("`lvault snapshot create`, from its start", by_command), ("the API, from the request", by_api)]
    {
        let most = times.iter().copied().fold(0.0, f64::max);
        say(&format!("| {who} | {} | {:.0} | {most:.0} |", times.len(), median(times.iter().copied())));
    }
    node.remove()
}

/// Milliseconds from asking until the engine has one volume more; then waits until the snapshot is copied and gone.
fn time(node: &mut Node, name: &str, ask: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<f64, String> {
    let folders = node.volumes();
    let before = names(&folders);
    let asked = Instant::now();
    let asking = std::thread::spawn(ask);
    let new = || Ok(names(&folders).iter().any(|name| !before.contains(name)).then(|| asked.elapsed()));
    let cut = node.until("the snapshot is cut", Duration::from_millis(1), new)?;
    asking.join().map_err(|_| "asking for a snapshot panicked".to_owned())??;
    node.program().args(["snapshot", "watch", name, "--timeout", "120s"]).run()?;
    node.until("the local snapshot is gone", Duration::from_millis(20), || {
        Ok((names(&folders).len() == before.len()).then_some(()))
    })?;
    Ok(cut.as_secs_f64() * 1000.0)
}

fn wanted(name: &str) -> Result<LogicalVolume, String> {
    let object = json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
        "spec": {
            "name": name, "nodeName": NODE, "size": "256Mi", "source": "data", "accessType": "ro",
            "onlineSnapshot": {"storage": {"name": "main", "namespace": "default"}},
        },
    });
    serde_json::from_value(object).map_err(|e| format!("the snapshot to ask for is malformed: {e}"))
}
