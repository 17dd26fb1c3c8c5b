//! Cluster-wide reconcilers.
