//! These tests against a cluster that they have not made themselves: another server's, which keeps what the test before has left.

use std::fs;

use lvault_apiserver::tls::{Identity, kubeconfig};
use lvault_apiserver::{ApiServer, ClusterKind, Config};
use tokio::net::TcpListener;

use crate::api::{OUTSIDE, is_outside};
use crate::process::command;

/// Two of them, one twice: each leaves volumes, storages, pods and leases behind.
const TESTS: [&str; 3] =
    ["ends::deleted_by_hand", "refusals::a_namespace_that_has_not_consented", "ends::deleted_by_hand"];

#[test]
fn they_run_against_a_cluster_one_after_the_other() {
    if is_outside() {
        eprintln!("not needed: a cluster is there already");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let owner = runtime.block_on(async {
        let kinds = [ClusterKind::Pod, ClusterKind::Node, ClusterKind::ConfigMap];
        let config = Config::in_memory(lvault_api::crds::all()).with_kinds(&kinds);
        let server = ApiServer::open(config).await.unwrap();
        let identity = Identity::load_or_create(&folder.path().join("tls")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let owner = kubeconfig(listener.local_addr().unwrap(), identity.ca_pem(), identity.token());
        tokio::spawn(async move { server.serve(listener, &identity, std::future::pending()).await });
        owner
    });
    let path = folder.path().join("owner");
    fs::write(&path, owner).unwrap();
    for test in TESTS {
        let mut child = command(std::env::current_exe().unwrap());
        let output = child.args(["--exact", test]).env(OUTSIDE, &path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{test}: {said}");
    }
}
