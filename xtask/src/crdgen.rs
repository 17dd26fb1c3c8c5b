//! The files in `deploy/crds`, the CRDs and their list for kustomize, are written by the code that defines the resources.

use std::fs;
use std::path::{Path, PathBuf};

const HEADER: &str = "# Written by `cargo xtask crdgen`; change crates/api instead.\n---\n";

/// Writes every CRD into `deploy/crds`.
pub(crate) fn write() -> Result<String, String> {
    let mut said = Vec::new();
    for (path, text) in files()? {
        fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        said.push(format!("wrote {}", path.display()));
    }
    Ok(said.join("\n"))
}

/// Fails when a file in `deploy/crds` is stale, missing, or nobody's.
pub(crate) fn check() -> Result<String, String> {
    let files = files()?;
    for (path, text) in &files {
        let found = fs::read_to_string(path).unwrap_or_default();
        if found != *text {
            return Err(format!("{} is stale: run `cargo xtask crdgen` and commit it", path.display()));
        }
    }
    let known: Vec<&PathBuf> = files.iter().map(|(path, _)| path).collect();
    let found = fs::read_dir(folder()).map_err(|e| format!("cannot list deploy/crds: {e}"))?;
    for entry in found.flatten().map(|entry| entry.path()) {
        if !known.contains(&&entry) {
            return Err(format!("{} is written by nothing: remove it", entry.display()));
        }
    }
    Ok(format!("{} CRD files are up to date", files.len()))
}

fn files() -> Result<Vec<(PathBuf, String)>, String> {
    let crds = lvault_api::crds::yaml().map_err(|e| format!("cannot write the CRDs as YAML: {e}"))?;
    let names: String = crds.iter().map(|(name, _)| format!("- {name}\n")).collect();
    let kustomization =
        format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n{names}");
    let all = crds.into_iter().chain([("kustomization.yaml".to_owned(), kustomization)]);
    Ok(all.map(|(name, text)| (folder().join(name), format!("{HEADER}{text}"))).collect())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}
