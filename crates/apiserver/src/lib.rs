//! An embedded Kubernetes API in one file.
