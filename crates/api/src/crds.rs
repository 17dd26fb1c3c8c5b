//! The CustomResourceDefinitions, with the rules that an API server enforces by itself.
//!
//! The transition table of [`lvault_core::next`] stands here a second time, as CEL rules over `oldSelf`, so that an
//! illegal transition is refused whoever writes it. A rule with `oldSelf` is not evaluated when its own part of the
//! object is written for the first time or removed: rules about those stand on the root, which is always there.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{LogicalVolume, SnapshotBackupStorage};

/// A CEL rule and what the API server answers when it does not hold.
struct Rule {
    rule: String,
    message: String,
}

/// Every CRD of lvault as a JSON document, ready for an API server.
pub fn all() -> Vec<Value> {
    let mut volume = document(LogicalVolume::crd());
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    for (part, plain, operation) in
        [("onlineSnapshot", "an online snapshot", "Backup"), ("restore", "a restore", "Restore")]
    {
        add(&mut volume, root, of_the_whole(part, plain, operation));
        add(&mut volume, &format!("{root}/properties/status/properties/{part}"), transitions());
        add(&mut volume, &format!("{root}/properties/spec/properties/{part}"), of_the_spec());
    }
    vec![volume, document(SnapshotBackupStorage::crd())]
}

/// What a user may not change. Where the copy goes is needed again when it is to be removed.
fn of_the_spec() -> Vec<Rule> {
    [
        ("self.attempt >= oldSelf.attempt", "attempt never goes back"),
        ("self.storage == oldSelf.storage", "the storage never changes: name another in a new object"),
    ]
    .map(|(rule, message)| Rule { rule: rule.to_owned(), message: message.to_owned() })
    .into()
}

/// The CRDs as YAML, each under the name of its file.
pub fn yaml() -> Result<Vec<(String, String)>, serde_yaml_ng::Error> {
    all()
        .into_iter()
        .map(|crd| {
            let plural = crd.pointer("/spec/names/plural").and_then(Value::as_str).unwrap_or_default();
            let text = serde_yaml_ng::to_string(&crd)?;
            Ok((format!("topolvm.io_{plural}.yaml"), text))
        })
        .collect()
}

fn document(crd: CustomResourceDefinition) -> Value {
    let mut crd = serde_json::to_value(crd).unwrap_or(Value::Null);
    tighten(&mut crd);
    crd
}

/// Quantities are checked by the API server as Kubernetes checks its own. No field is nullable: an API server drops a
/// null that stands in one that is not, so that `has()` in a rule means what it says.
fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                map.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
                let pattern = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
                map.insert("pattern".to_owned(), json!(pattern));
            }
            map.values_mut().for_each(tighten);
        }
        Value::Array(list) => list.iter_mut().for_each(tighten),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn add(crd: &mut Value, pointer: &str, rules: Vec<Rule>) {
    let rules = rules.into_iter().map(|Rule { rule, message }| json!({"rule": rule, "message": message}));
    let Some(Value::Object(schema)) = crd.pointer_mut(pointer) else {
        unreachable!("the CRD has no schema at {pointer}: a field was renamed without its rules");
    };
    let list = schema.entry("x-kubernetes-validations").or_insert(json!([]));
    if let Value::Array(list) = list {
        list.extend(rules);
    }
}

/// Rules that stand on the root, as they are about a part that comes or goes, or about its place.
fn of_the_whole(part: &str, plain: &str, operation: &str) -> Vec<Rule> {
    let was = format!("(has(oldSelf.status) && has(oldSelf.status.{part}))");
    let is = format!("(has(self.status) && has(self.status.{part}))");
    let first = format!("{was} || !{is}");
    vec![
        Rule {
            rule: format!("!{is} || self.status.{part}.operation == '{operation}'"),
            message: format!("the operation of {plain} is {operation}"),
        },
        Rule {
            rule: format!("{first} || self.status.{part}.phase == 'Pending'"),
            message: format!("the first phase of {plain} is Pending"),
        },
        Rule {
            rule: format!("{first} || !has(self.status.{part}.executor)"),
            message: "the first attempt begins unclaimed and without losses".to_owned(),
        },
        Rule { rule: format!("!{was} || {is}"), message: format!("status.{part} is never removed") },
        Rule {
            rule: format!("!has(self.spec) || !has(oldSelf.spec) || has(self.spec.{part}) == has(oldSelf.spec.{part})"),
            message: format!("spec.{part} is neither added nor removed: make a new object"),
        },
    ]
}

/// The table, as far as it can be told from the status before and after. What it cannot tell is who writes: an executor
/// that was not launched by the agent, or a limit of losses that was not reached, pass.
fn transitions() -> Vec<Rule> {
    let rule = |rule: &str, message: &str| Rule { rule: rule.to_owned(), message: message.to_owned() };
    let mut rules = vec![
        rule("self.attempt >= oldSelf.attempt", "the attempt never goes back"),
        rule(
            "self.attempt == oldSelf.attempt || (oldSelf.phase == 'Failed' && self.phase == 'Pending')",
            "a new attempt begins as Pending, and only after a failed one",
        ),
        rule(
            "self.attempt == oldSelf.attempt || !has(self.executor)",
            "a new attempt begins unclaimed and without losses",
        ),
        rule(
            &format!(
                "{OTHER} || self.phase == oldSelf.phase \
                 || (oldSelf.phase == 'Pending' && self.phase in ['Running', 'Failed']) \
                 || (oldSelf.phase == 'Running' && self.phase in ['Succeeded', 'Failed'])"
            ),
            "within an attempt phases go Pending, Running, Succeeded or Failed, and never back",
        ),
        rule(
            &format!(
                "{OTHER} || !(oldSelf.phase in ['Succeeded', 'Failed']) \
                 || (has(self.snapshotID) == has(oldSelf.snapshotID) \
                 && (!has(self.snapshotID) || self.snapshotID == oldSelf.snapshotID))"
            ),
            "an ended attempt keeps its snapshotID",
        ),
        rule(
            "self.phase != 'Succeeded' || self.operation != 'Backup' \
             || (has(self.snapshotID) && self.snapshotID != '')",
            "a Succeeded backup names its snapshotID",
        ),
        rule(
            "self.phase == 'Succeeded' || self.operation != 'Backup' || !has(self.snapshotID)",
            "only a Succeeded backup names a snapshotID",
        ),
    ];
    rules.extend(claims());
    rules.extend(losses());
    rules
}

/// Holds where the attempt is another one than before.
const OTHER: &str = "self.attempt != oldSelf.attempt";
/// Holds where an executor has claimed the attempt.
const CLAIMED: &str = "(has(self.executor) && has(self.executor.epoch))";
const WAS_CLAIMED: &str = "(has(oldSelf.executor) && has(oldSelf.executor.epoch))";
/// How many executors were lost.
const LOST: &str = "(has(self.executor) && has(self.executor.lost) ? self.executor.lost : 0)";
const WAS_LOST: &str = "(has(oldSelf.executor) && has(oldSelf.executor.lost) ? oldSelf.executor.lost : 0)";

fn claims() -> Vec<Rule> {
    let rule = |rule: String, message: &str| Rule { rule, message: message.to_owned() };
    vec![
        rule(
            "!has(self.executor) || (has(self.executor.name) == has(self.executor.epoch) \
             && has(self.executor.launch) == has(self.executor.epoch))"
                .to_owned(),
            "a claim has a name, an epoch and a launch",
        ),
        rule(format!("self.phase != 'Running' || {CLAIMED}"), "a Running attempt names its executor"),
        rule(
            format!(
                "{OTHER} || {WAS_CLAIMED} || !{CLAIMED} \
                 || (oldSelf.phase == 'Pending' && self.phase == 'Running' && self.executor.epoch == 1)"
            ),
            "an attempt is first claimed from Pending to Running, with epoch 1",
        ),
        rule(
            format!(
                "{OTHER} || !{WAS_CLAIMED} || ({CLAIMED} \
                 && ((self.executor.epoch == oldSelf.executor.epoch && self.executor.name == oldSelf.executor.name \
                 && self.executor.launch == oldSelf.executor.launch) \
                 || (self.executor.epoch == oldSelf.executor.epoch + 1 \
                 && self.executor.launch > oldSelf.executor.launch && self.phase == 'Running')))"
            ),
            "another executor takes an attempt over only with the next epoch",
        ),
        rule(
            format!(
                "{OTHER} || !{CLAIMED} \
                 || ({WAS_CLAIMED} && self.executor.epoch == oldSelf.executor.epoch) \
                 || self.executor.launch == {LOST} + 1"
            ),
            "an attempt is claimed by the launch that follows all lost ones",
        ),
        rule(
            format!("self.phase != 'Succeeded' || ({CLAIMED} && self.executor.launch == {LOST} + 1)"),
            "an executor that was declared lost does not succeed",
        ),
    ]
}

fn losses() -> Vec<Rule> {
    let rule = |rule: String, message: &str| Rule { rule, message: message.to_owned() };
    vec![
        rule(format!("{OTHER} || {LOST} >= {WAS_LOST}"), "executors once lost stay lost"),
        rule(
            format!(
                "{OTHER} || {LOST} <= {WAS_LOST} || ({LOST} == {WAS_LOST} + 1 \
                 && self.phase == oldSelf.phase && self.phase in ['Pending', 'Running'] \
                 && {CLAIMED} == {WAS_CLAIMED} && (!{CLAIMED} || self.executor.epoch == oldSelf.executor.epoch))"
            ),
            "a loss is recorded alone, one at a time, and before the attempt has ended",
        ),
    ]
}
