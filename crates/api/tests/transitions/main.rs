//! The transition table stands twice: in `lvault_core::next`, and as CEL rules in the CRD. This compares the two.
//!
//! The statuses compared are all that can be reached from nothing with two attempts, two executors and two losses, each
//! written as this crate writes it, and all that lie one field beside them. Rules of a CRD see the status before and after,
//! and not who writes and why; of what can be told from the statuses, they allow exactly what the table allows.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod embedded;
mod pairs;
mod refusals;
mod universe;

use lvault_api::{Operation, TransferStatus};
use serde_json::{Value, json};

/// Judges status writes with the rules of the real CRD.
struct Rules {
    document: Value,
    schema: kube_cel::CompiledSchema,
}

impl Rules {
    fn of_the_crd() -> Self {
        let crds = lvault_api::crds::all();
        let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == "LogicalVolume").expect("the CRD");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        Self { document: schema.clone(), schema: kube_cel::compile_schema(schema) }
    }

    /// The messages of all rules about `status.onlineSnapshot`.
    fn about_snapshots(&self) -> Vec<String> {
        let at = |node: &Value| node["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
        let rules = at(&self.document["properties"]["status"]["properties"]["onlineSnapshot"]);
        let root =
            at(&self.document).into_iter().filter(|rule| rule["rule"].to_string().contains("status.onlineSnapshot"));
        let messages = rules.into_iter().chain(root).filter_map(|rule| rule["message"].as_str().map(str::to_owned));
        messages.collect()
    }

    /// The messages of the rules that a write of `new` over `old` breaks. `None` is no status at all.
    fn broken(&self, old: Option<&Value>, new: Option<&Value>) -> Vec<String> {
        let (old, new) = (object(old), object(new));
        match kube_cel::validate_compiled(&self.schema, &new, Some(&old)) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.message).collect(),
        }
    }

    /// As [`Rules::broken`], for statuses of one transfer.
    fn broken_by(&self, place: Operation, old: Option<&TransferStatus>, new: Option<&TransferStatus>) -> Vec<String> {
        let part = |one: &TransferStatus| status_of(place, one);
        let (old, new) = (old.map(part), new.map(part));
        self.broken(old.as_ref(), new.as_ref())
    }
}

fn object(status: Option<&Value>) -> Value {
    let mut object = json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
        "metadata": {"name": "monday", "uid": "7b1f0c1e-9a0e-4f5e-8d55-0a3f0b6c1d2e"},
        "spec": {"name": "monday", "nodeName": "n", "size": "1Gi", "source": "data"},
    });
    if let Some(status) = status {
        object["status"] = status.clone();
    }
    object
}

/// A volume's status that holds this transfer and nothing else.
fn status(transfer: &TransferStatus) -> Value {
    status_of(transfer.operation, transfer)
}

/// As [`status`], in the place of another operation.
fn status_of(place: Operation, transfer: &TransferStatus) -> Value {
    let part = match place {
        Operation::Backup => "onlineSnapshot",
        Operation::Restore => "restore",
    };
    json!({part: serde_json::to_value(transfer).expect("a status has a wire form")})
}

#[test]
fn every_rule_compiles() {
    fn errors(node: &kube_cel::CompiledSchema, into: &mut Vec<String>) -> usize {
        into.extend(node.compilation_errors().iter().map(ToString::to_string));
        node.validations.len() + node.properties.values().map(|child| errors(child, into)).sum::<usize>()
    }
    let mut wrong = Vec::new();
    let rules = errors(&Rules::of_the_crd().schema, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    assert!(rules >= 20, "only {rules} rules were found: they are looked for in the wrong place");
}
