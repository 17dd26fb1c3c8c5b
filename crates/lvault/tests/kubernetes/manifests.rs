//! The manifests of `deploy/base`, as kustomize would hand them to the API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::command;

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

/// The chart with its default values but for these, installed into lvault-system. Its templates substitute values and do
/// nothing else.
fn rendered(file: &str, set: &[(&str, Value)]) -> Vec<Value> {
    let mut values = documents("chart", "values.yaml").remove(0);
    for (name, value) in set {
        *values.pointer_mut(name).expect("the chart has this value") = value.clone();
    }
    let text = std::fs::read_to_string(folder("chart").join("templates").join(file)).unwrap();
    let mut rendered = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("{{ ") {
        let (expression, after) = after.split_once(" }}").expect("it ends");
        rendered.push_str(before);
        let (expression, as_json) = match expression.strip_suffix(" | toJson") {
            Some(expression) => (expression, true),
            None => (expression, false),
        };
        match expression.strip_prefix(".Values.") {
            Some(path) => match values.pointer(&format!("/{}", path.replace('.', "/"))) {
                Some(value) if as_json || value.is_number() => rendered.push_str(&value.to_string()),
                Some(Value::String(value)) => rendered.push_str(value),
                other => panic!("{file}: {expression}: {other:?}"),
            },
            None if expression == ".Release.Namespace" => rendered.push_str("lvault-system"),
            None => panic!("{file}: {expression} is no substitution of a value"),
        }
        rest = after;
    }
    rendered.push_str(rest);
    serde_yaml_ng::Deserializer::from_str(&rendered).map(|document| Value::deserialize(document).unwrap()).collect()
}

/// The files of the base that the chart has too: Helm makes the namespace itself.
fn in_both() -> Vec<String> {
    let mut files = listed("base");
    files.retain(|file| file != "namespace.yaml");
    files
}

/// What `kubectl kustomize` makes of a folder, by kind and name, without the CRDs and the namespace.
fn kustomized(name: &str) -> BTreeMap<String, Value> {
    let made = command("kubectl").arg("kustomize").arg(folder(name)).output().expect("kubectl; see `make setup`");
    assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).unwrap();
    by_name(serde_yaml_ng::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()))
}

fn by_name(objects: impl Iterator<Item = Value>) -> BTreeMap<String, Value> {
    objects
        .filter(|object| !matches!(object["kind"].as_str().unwrap(), "CustomResourceDefinition" | "Namespace"))
        .map(|object| {
            let metadata = &object["metadata"];
            (format!("{} {}/{}", object["kind"], metadata["namespace"], metadata["name"]), object)
        })
        .collect()
}

#[test]
fn every_overlay_is_the_chart_with_other_values() {
    let lvmd = documents("overlays/lvm", "lvmd.yaml").remove(0)["data"]["lvmd.yaml"].clone();
    let one = ("/controller/replicas", json!(1));
    let overlays = [
        ("base", vec![]),
        ("overlays/lvm", vec![("/engine", json!("lvm")), ("/lvmd", lvmd)]),
        ("overlays/single-node", vec![one.clone()]),
        ("overlays/dev", vec![one, ("/engine", json!("directory")), ("/log", json!("debug"))]),
    ];
    for (name, set) in &overlays {
        let chart = by_name(in_both().iter().flat_map(|file| rendered(file, set)));
        let made = kustomized(name);
        assert_eq!(made.keys().collect::<Vec<_>>(), chart.keys().collect::<Vec<_>>(), "{name}");
        for (key, object) in &made {
            assert_eq!(object, &chart[key], "{name}: {key}");
        }
    }
    let there = std::fs::read_dir(folder("overlays")).unwrap().count();
    assert_eq!(there, overlays.len() - 1, "every overlay is compared");
}

#[test]
fn the_chart_has_the_same_content() {
    let kustomization = documents("base", "kustomization.yaml").remove(0);
    let image = &kustomization["images"][0];
    let image = format!("{}:{}", image["newName"].as_str().unwrap(), image["newTag"].as_str().unwrap());
    let files = in_both();
    for file in &files {
        let mut base = documents("base", file);
        for document in &mut base {
            if let Some(of_container) = document.pointer_mut("/spec/template/spec/containers/0/image") {
                assert_eq!(of_container, "lvault", "the name that the kustomization replaces");
                *of_container = Value::String(image.clone());
            }
        }
        assert_eq!(rendered(file, &[]), base, "{file}");
    }
    let count = |folder: PathBuf| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(count(folder("chart").join("templates")), files.len());
    for file in listed("crds") {
        assert_eq!(documents("chart/crds", &file), documents("crds", &file));
    }
    let version = documents("chart", "Chart.yaml").remove(0)["appVersion"].clone();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(image.ends_with(env!("CARGO_PKG_VERSION")));
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
        ("node.yaml", vec!["NODE_NAME", "POD_NAME", "POD_NAMESPACE", "POD_UID"]),
        ("controller.yaml", vec!["POD_NAME", "POD_NAMESPACE", "POD_UID"]),
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
