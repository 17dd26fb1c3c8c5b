//! Every way a pod can end before its work is done: it is noticed, said in its own words, and followed or failed.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use lvault_api::LogicalVolume;
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, Times};

/// A cluster in which the first executor of a snapshot stands at the gate.
fn at_the_gate() -> (Cluster, Pod) {
    let cluster = Cluster::new();
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.kubelet.mood(|mood| mood.gate = true);
    cluster.snapshot("s", "v", NAMESPACE, 3);
    let pod = cluster.running_pod(1);
    (cluster, pod)
}

/// The snapshot succeeds with the second executor, and the story says how the first ended.
fn is_followed(cluster: &Cluster, words: &str) {
    let ended = cluster.succeeds("s");
    assert_eq!(ended.executor.unwrap().lost, Some(1));
    assert_eq!(cluster.committed("v"), 1);
    let lost = cluster.until("an event says how it was lost", || {
        let events = cluster.events("s").into_iter();
        Some(events.filter(|(reason, _)| reason == "ExecutorLost").collect()).filter(|lost: &Vec<_>| !lost.is_empty())
    });
    assert!(lost.len() == 1 && lost[0].1.contains(words), "{lost:?}");
    cluster.is_clean();
}

#[test]
fn out_of_memory() {
    let (cluster, pod) = at_the_gate();
    cluster.kubelet.mood(|mood| (mood.gate, mood.killed_by) = (false, Some("OOMKilled")));
    cluster.kubelet.kill(&pod);
    is_followed(&cluster, "OOMKilled");
}

#[test]
fn evicted() {
    let (cluster, pod) = at_the_gate();
    cluster.kubelet.mood(|mood| (mood.gate, mood.killed_by) = (false, Some("Evicted")));
    cluster.kubelet.kill(&pod);
    is_followed(&cluster, "The node was low on resource: memory.");
}

#[test]
fn deleted_by_hand() {
    let (cluster, pod) = at_the_gate();
    cluster.kubelet.mood(|mood| mood.gate = false);
    cluster.delete_pod(&pod);
    is_followed(&cluster, &pod.metadata.name.unwrap());
}

/// L18: nobody was there to see it.
#[test]
fn deleted_while_the_agent_was_down() {
    let (mut cluster, pod) = at_the_gate();
    cluster.kill_agent();
    cluster.kubelet.mood(|mood| mood.gate = false);
    cluster.delete_pod(&pod);
    cluster.until("the pod has ended", || {
        let pods = cluster.pods();
        pods.iter().all(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Failed")).then_some(())
    });
    assert_eq!(cluster.pods().len(), 1, "what it died of is kept for the agent");
    cluster.start_agent();
    is_followed(&cluster, &pod.metadata.name.unwrap());
}

#[test]
fn hung() {
    // It stays at the gate for longer than a lease lasts.
    let (cluster, _pod) = at_the_gate();
    cluster.kubelet.mood(|mood| mood.gate = false);
    is_followed(&cluster, "its heartbeat had stopped");
}

#[test]
fn an_agent_that_starts_again_leaves_it_alone() {
    let (mut cluster, pod) = at_the_gate();
    cluster.kubelet.mood(|mood| mood.gate = false);
    cluster.terminate_agent();
    cluster.kubelet.go_on(&pod);
    cluster.succeeds("s");
    assert_eq!(cluster.pods().len(), 1, "its end is the agent's to note");
    cluster.start_agent();
    cluster.is_clean();
    assert_eq!((*cluster.kubelet.started.lock().unwrap(), cluster.committed("v")), (1, 1));
    assert_eq!(cluster.transfer("s").unwrap().executor.unwrap().lost.unwrap_or(0), 0);
}

#[test]
fn an_image_that_cannot_be_pulled() {
    let cluster = Cluster::new();
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.kubelet.mood(|mood| mood.no_images = true);
    cluster.snapshot("s", "v", NAMESPACE, 1);
    let message = cluster.fails("s");
    assert!(message.contains("did not start within 2 s") && message.contains("ImagePullBackOff"), "{message}");
    cluster.is_clean();
    assert_eq!(*cluster.kubelet.started.lock().unwrap(), 0);
}

#[test]
fn a_node_that_has_no_room_for_it() {
    let cluster = Cluster::new();
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.kubelet.mood(|mood| mood.full = true);
    cluster.snapshot("s", "v", NAMESPACE, 2);
    let message = cluster.fails("s");
    assert!(message.contains("2 executors were lost") && message.contains("OutOfmemory"), "{message}");
    cluster.is_clean();
}

/// A lease cannot be renewed before the program runs, however long the image takes.
#[test]
fn an_image_that_takes_longer_than_a_lease() {
    let cluster = Cluster::with(Times { pod_start: "60s", lease: "1s", ..Times::default() });
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.kubelet.mood(|mood| mood.no_images = true);
    cluster.snapshot("s", "v", NAMESPACE, 1);
    cluster.until("its pod is there", || cluster.pods().pop());
    let waits = std::time::Instant::now();
    cluster.until("it has waited for three leases", || (waits.elapsed().as_secs() >= 3).then_some(()));
    assert_eq!(cluster.pods().pop().unwrap().metadata.deletion_timestamp, None);
    cluster.kubelet.mood(|mood| mood.no_images = false);
    let ended = cluster.succeeds("s");
    assert_eq!(ended.executor.unwrap().lost.unwrap_or(0), 0);
}

/// The node goes down with agent and executor, and comes back: the agent finds what the kubelet noted.
#[test]
fn a_node_that_is_rebooted() {
    let (mut cluster, pod) = at_the_gate();
    cluster.kill_agent();
    cluster.kubelet.mood(|mood| (mood.gate, mood.killed_by) = (false, Some("Terminated")));
    cluster.kubelet.kill(&pod);
    cluster.until("the kubelet has noted it", || {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        cluster.pods().iter().all(|pod| phase(pod).as_deref() == Some("Failed")).then_some(())
    });
    cluster.start_agent();
    is_followed(&cluster, "Terminated");
}

/// Somebody has removed the object by force, finalizer and all: nobody is left who would let its executor go.
#[test]
fn an_object_that_is_removed_by_force() {
    let (cluster, pod) = at_the_gate();
    let volumes: Api<LogicalVolume> = Api::all(cluster.client.clone());
    let forced = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.runtime.block_on(async {
        volumes.delete("s", &DeleteParams::default()).await.unwrap();
        volumes.patch("s", &PatchParams::default(), &forced).await.unwrap();
    });
    cluster.until("it is gone", || cluster.get("s").is_none().then_some(()));
    // The garbage collector deletes what it owned, and the kubelet ends it.
    cluster.delete_pod(&pod);
    cluster.until("the controller has let it go", || cluster.pods().is_empty().then_some(()));
}
