//! The kinds of the suite: a namespaced one with all that a schema can say, and a plain one of cluster scope.
//!
//! Holds: both documents are accepted by a cluster: structural, and with rules whose cost is bounded.

use serde_json::{Value, json};

/// Both CustomResourceDefinitions, in that API group.
pub(crate) fn documents(group: &str) -> Vec<Value> {
    vec![widgets(group), gadgets(group)]
}

fn widgets(group: &str) -> Value {
    let columns = json!([
        {"name": "Size", "type": "string", "jsonPath": ".spec.size", "description": "How large it is."},
        {"name": "Count", "type": "integer", "jsonPath": ".spec.count"},
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Comment", "type": "string", "jsonPath": ".spec.comment", "priority": 1}]);
    let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": spec(), "status": status()}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
               "additionalPrinterColumns": columns, "selectableFields": [{"jsonPath": ".spec.nodeName"}],
               "schema": {"openAPIV3Schema": schema}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                      "shortNames": ["wdg"], "categories": ["conformance"]},
            "versions": [version("v1", true), version("v1beta1", false)]}})
}

fn spec() -> Value {
    let quantity = "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?[0-9]+))?$";
    let port = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "maxLength": 20},
        "port": {"type": "integer", "format": "int32"},
        "protocol": {"type": "string", "default": "TCP", "maxLength": 10}}});
    json!({"type": "object", "required": ["size"], "description": "What is wanted.", "properties": {
        "size": {"x-kubernetes-int-or-string": true, "description": "How large it is."},
        "mode": {"type": "string", "enum": ["ro", "rw"], "default": "rw"},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": 1},
        "step": {"type": "integer", "multipleOf": 4},
        "small": {"type": "integer", "format": "int32"},
        "enabled": {"type": "boolean"},
        "code": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
        "comment": {"type": "string", "nullable": true},
        "nodeName": {"type": "string", "maxLength": 64},
        "capacity": {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": quantity,
                     "x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "address": {"type": "string", "format": "ipv4"},
        "identity": {"type": "string", "format": "uuid"},
        "data": {"type": "string", "format": "byte"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 8,
                 "items": {"type": "string", "maxLength": 20}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                  "maxItems": 8, "items": port},
        "words": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "maxLength": 20}},
        "labels": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}},
        "weights": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "limits": {"type": "object", "default": {}, "properties": {
            "cpu": {"type": "string", "default": "1", "maxLength": 10}, "memory": {"type": "string", "maxLength": 10}}},
        "choice": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                   "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "never": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
                  "not": {"required": ["x", "y"]}},
        "low": {"type": "integer"}, "high": {"type": "integer"}},
        "x-kubernetes-validations": [
            {"rule": "!has(oldSelf.nodeName) || (has(self.nodeName) && self.nodeName == oldSelf.nodeName)",
             "message": "nodeName never changes"},
            {"rule": "!has(self.low) || !has(self.high) || self.low <= self.high",
             "messageExpression": "'low is ' + string(self.low) + ' and high is ' + string(self.high)",
             "reason": "FieldValueForbidden", "fieldPath": ".high"}]})
}

fn status() -> Value {
    let condition = json!({"type": "object", "required": ["type", "status"], "properties": {
        "type": {"type": "string", "maxLength": 40}, "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "message": {"type": "string", "maxLength": 200}}});
    json!({"type": "object", "properties": {
        "phase": {"type": "string", "enum": ["Pending", "Running", "Done"]},
        "message": {"type": "string"},
        "observedGeneration": {"type": "integer", "format": "int64"},
        "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                       "maxItems": 8, "items": condition}},
        "x-kubernetes-validations": [
            {"rule": "!has(oldSelf.phase) || oldSelf.phase != 'Done' || (has(self.phase) && self.phase == 'Done')",
             "message": "a terminal phase never changes"}]})
}

fn gadgets(group: &str) -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("gadgets.{group}")},
        "spec": {"group": group, "scope": "Cluster",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}
