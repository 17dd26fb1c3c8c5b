//! The manifests of `deploy/base`, as kustomize would hand them to the API.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Every document of a file.
pub(crate) fn documents(folder_name: &str, file: &str) -> Vec<Value> {
    let path = folder(folder_name).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml_ng::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// The files that a kustomization lists, without the folders.
fn listed(folder_name: &str) -> Vec<String> {
    let kustomization = documents(folder_name, "kustomization.yaml").remove(0);
    let resources = kustomization["resources"].as_array().unwrap().clone();
    resources.iter().map(|name| name.as_str().unwrap().to_owned()).filter(|name| name.ends_with(".yaml")).collect()
}

/// Everything that `deploy/base` lists but the CRDs.
pub(crate) fn base() -> Vec<Value> {
    listed("base").iter().flat_map(|file| documents("base", file)).collect()
}

#[test]
fn every_manifest_is_listed() {
    for name in ["base", "crds"] {
        let mut there: Vec<String> = std::fs::read_dir(folder(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|file| file != "kustomization.yaml")
            .collect();
        let mut said = listed(name);
        there.sort();
        said.sort();
        assert_eq!(there, said, "deploy/{name}");
    }
}

#[test]
fn what_the_pods_are_started_with_is_understood() {
    use clap::Parser;
    for (file, variables) in [
        ("node.yaml", vec!["NODE_NAME", "POD_NAME", "POD_NAMESPACE"]),
        ("controller.yaml", vec!["POD_NAME", "POD_NAMESPACE"]),
    ] {
        let document = documents("base", file).remove(0);
        let container = &document["spec"]["template"]["spec"]["containers"][0];
        let mut line = vec!["lvault".to_owned()];
        line.extend(container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned()));
        // What comes from the environment there is said here.
        let node = file == "node.yaml";
        line.extend(if node { vec!["--node-name=n".to_owned(), "--pod-name=p".to_owned()] } else { Vec::new() });
        lvault::args::Cli::try_parse_from(&line).unwrap_or_else(|e| panic!("{file}: {e}"));
        let names: Vec<&str> =
            container["env"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert!(variables.iter().all(|variable| names.contains(variable)), "{file}: {names:?}");
        let port = container["ports"][0]["containerPort"].as_i64().unwrap();
        assert_eq!(port, if node { 9808 } else { 9809 }, "the port of the probes is the one that is listened on");
    }
}
