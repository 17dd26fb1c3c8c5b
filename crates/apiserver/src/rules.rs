//! The CEL rules of a kind (`x-kubernetes-validations`), compiled once.
//!
//! Holds: a rule that does not compile refuses the kind at registration; a rule that cannot be evaluated refuses the write.

use std::fmt;
use std::sync::Arc;

use kube_cel::{CompiledSchema, compile_schema};
use serde_json::Value;

use crate::refusal::{Cause, CauseReason};

/// Why the rules of a kind cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("a validation rule cannot be used: {why}")]
pub struct RuleError {
    /// What the compiler said, with the rule.
    why: String,
}

/// The compiled rules of one version of a kind.
#[derive(Clone)]
pub(crate) struct Rules {
    compiled: Arc<CompiledSchema>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

impl Rules {
    /// Compiles the rules found anywhere in the schema; `None` when there are none.
    pub(crate) fn compile(schema: &Value) -> Result<Option<Rules>, RuleError> {
        let compiled = compile_schema(schema);
        let mut faults = Vec::new();
        let count = examine(&compiled, &mut faults);
        if let Some(why) = faults.into_iter().next() {
            return Err(RuleError { why });
        }
        Ok((count > 0).then(|| Rules { compiled: Arc::new(compiled) }))
    }

    /// The rules that `new` breaks. Rules about a transition are asked only when there is an `old`.
    pub(crate) fn broken(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        match kube_cel::validate_compiled(&self.compiled, new, old) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| cause(&error, new)).collect(),
        }
    }
}

/// Counts the rules below a node and collects what did not compile.
fn examine(node: &CompiledSchema, faults: &mut Vec<String>) -> usize {
    faults.extend(node.compilation_errors().iter().map(ToString::to_string));
    let children = node
        .properties
        .values()
        .chain(node.items.as_deref())
        .chain(node.additional_properties.as_deref())
        .chain(&node.all_of)
        .chain(&node.any_of)
        .chain(&node.one_of);
    node.validations.len() + children.map(|child| examine(child, faults)).sum::<usize>()
}

fn cause(error: &kube_cel::ValidationError, object: &Value) -> Cause {
    let field = if error.field_path.is_empty() { "<nil>" } else { error.field_path.as_str() };
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => Cause::forbidden(field, &error.message),
        Some("FieldValueRequired") => Cause::required(field, &error.message),
        Some("FieldValueDuplicate") => {
            Cause { reason: CauseReason::Duplicate, field: String::from(field), message: error.message.clone() }
        }
        Some(_) | None => Cause::invalid(field, &type_at(object, &error.field_path), &error.message),
    }
}

/// What Kubernetes shows as the value of a broken rule: the type of what the rule stands on.
fn type_at(object: &Value, path: &str) -> Value {
    let found = path.split('.').filter(|step| !step.is_empty()).try_fold(object, |value, step| value.get(step));
    let name = match found {
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "array",
        Some(Value::Object(_)) | None => "object",
    };
    Value::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn transition_rules_are_asked_of_transitions_only() {
        let schema = json!({"type": "object", "properties": {"status": {"type": "object", "properties": {
            "phase": {"type": "string"}},
            "x-kubernetes-validations": [
                {"rule": "oldSelf.phase != 'Done' || self.phase == 'Done'", "message": "a terminal phase never changes"}]}}});
        let rules = Rules::compile(&schema).expect("compiles").expect("has rules");
        let done = json!({"status": {"phase": "Done"}});
        let running = json!({"status": {"phase": "Running"}});
        assert!(rules.broken(&running, None).is_empty());
        assert!(rules.broken(&done, Some(&running)).is_empty());
        let broken = rules.broken(&running, Some(&done));
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0].to_string(), "status: Invalid value: \"object\": a terminal phase never changes");
    }

    #[test]
    fn a_rule_that_does_not_compile_is_refused_at_once() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]});
        assert!(Rules::compile(&schema).is_err());
        assert!(Rules::compile(&json!({"type": "object"})).expect("no rules").is_none());
    }
}
