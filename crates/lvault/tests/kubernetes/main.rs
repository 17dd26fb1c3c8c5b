//! lvault as a cluster runs it: `lvault node` and `lvault controller` as processes with the rights of the manifests in
//! `deploy/base` and no others, against the embedded API on its TLS port, or the cluster that `LVAULT_TEST_KUBECONFIG` names;
//! executors as pods, which a small kubelet starts.
//!
//! What holds here: nothing of lvault is replaced. What the kubelet of a real node does to pods, [`kubelet`] does: it starts
//! them as processes, kills them, says how they ended, and lets them go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

mod api;
mod cluster;
mod kubelet;
mod manifests;
mod process;

mod ends;
mod outside;
mod refusals;
mod rights;
mod takeover;
