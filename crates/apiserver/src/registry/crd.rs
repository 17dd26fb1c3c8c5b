//! Reading a CustomResourceDefinition document into the registry.
//!
//! Holds: a document is registered whole or refused with the place that is wrong.

use serde::Deserialize;
use serde_json::{Value, json};

use super::column::{Cell, Column};
use super::{Form, Nature, Registry, Resource, ResourceId, Selectable, View, ViewId};
use crate::jsonpath::{JsonPath, PathError};
use crate::rules::{RuleError, Rules};
use crate::schema::{Additional, Schema, SchemaError};

/// Why a kind cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The document has not the shape of a CustomResourceDefinition.
    #[error("CustomResourceDefinition {name}: not readable; it has to be an apiextensions.k8s.io/v1 document")]
    Document {
        /// Its metadata.name.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// No version is marked as the stored one, or several are.
    #[error("CustomResourceDefinition {name}: exactly one version must have storage: true, found {found}")]
    Storage {
        /// Its metadata.name.
        name: String,
        /// How many are.
        found: usize,
    },
    /// Another kind has the same resource or kind.
    #[error("CustomResourceDefinition {name}: {what} is registered already; remove one of the two")]
    Duplicate {
        /// Its metadata.name.
        name: String,
        /// What both claim.
        what: String,
    },
    /// The schema of a version cannot be used.
    #[error("CustomResourceDefinition {name}, version {version}")]
    Schema {
        /// Its metadata.name.
        name: String,
        /// The version.
        version: String,
        /// What is wrong.
        source: SchemaError,
    },
    /// A validation rule of a version cannot be used.
    #[error("CustomResourceDefinition {name}, version {version}")]
    Rules {
        /// Its metadata.name.
        name: String,
        /// The version.
        version: String,
        /// What is wrong.
        source: RuleError,
    },
    /// A path of a column or a selectable field cannot be used.
    #[error("CustomResourceDefinition {name}, version {version}")]
    Path {
        /// Its metadata.name.
        name: String,
        /// The version.
        version: String,
        /// What is wrong.
        source: PathError,
    },
}

#[derive(Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    names: Names,
    scope: Scope,
    versions: Vec<Version>,
}

#[derive(Deserialize, PartialEq)]
enum Scope {
    Namespaced,
    Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    plural: String,
    singular: Option<String>,
    kind: String,
    list_kind: Option<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    name: String,
    served: bool,
    storage: bool,
    schema: Option<VersionSchema>,
    #[serde(default)]
    subresources: Subresources,
    #[serde(default)]
    additional_printer_columns: Vec<PrinterColumn>,
    #[serde(default)]
    selectable_fields: Vec<SelectableField>,
}

#[derive(Deserialize)]
struct VersionSchema {
    #[serde(rename = "openAPIV3Schema")]
    open_api: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Subresources {
    status: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrinterColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    priority: i64,
    json_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableField {
    json_path: String,
}

/// Registers the kind that the document declares.
pub(super) fn register(registry: &mut Registry, document: &Value, nature: Nature) -> Result<ResourceId, RegistryError> {
    let name = String::from(document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name"));
    let parsed = Document::deserialize(document);
    let spec = parsed.map_err(|source| RegistryError::Document { name: name.clone(), source })?.spec;
    refuse_duplicates(registry, &spec, &name)?;
    let stored: Vec<&Version> = spec.versions.iter().filter(|version| version.storage).collect();
    let [storage] = stored.as_slice() else {
        return Err(RegistryError::Storage { name, found: stored.len() });
    };
    let selectable = selectable(storage, &name)?;
    let id = ResourceId(registry.resources.len());
    // The stored form is a view in any case: it is what migrations and owner references are read through.
    let mut views = vec![view(id, &spec, storage, Form::Stored, &name)?];
    for version in spec.versions.iter().filter(|version| version.served && !version.storage) {
        views.push(view(id, &spec, version, Form::Relabelled, &name)?);
    }
    let singular = spec.names.singular.unwrap_or_else(|| spec.names.kind.to_lowercase());
    let list_kind = spec.names.list_kind.unwrap_or_else(|| format!("{}List", spec.names.kind));
    registry.resources.push(Resource {
        group: spec.group,
        plural: spec.names.plural,
        singular,
        kind: spec.names.kind,
        list_kind,
        short_names: spec.names.short_names,
        categories: spec.names.categories,
        namespaced: spec.scope == Scope::Namespaced,
        nature,
        selectable,
        storage: ViewId(registry.views.len()),
    });
    registry.views.extend(views);
    Ok(id)
}

fn refuse_duplicates(registry: &Registry, spec: &Spec, name: &str) -> Result<(), RegistryError> {
    let claims = |group: &str, plural: &str, kind: &str| {
        group == spec.group && (plural == spec.names.plural || kind == spec.names.kind)
    };
    let taken = registry
        .views()
        .map(|(_, view)| (view, registry.resource(view.resource)))
        .find(|(view, resource)| claims(&view.group, &resource.plural, &resource.kind));
    match taken {
        None => Ok(()),
        Some((view, resource)) => Err(RegistryError::Duplicate {
            name: String::from(name),
            what: format!("{} ({}) of group {:?}", resource.plural, resource.kind, view.group),
        }),
    }
}

fn selectable(version: &Version, name: &str) -> Result<Vec<Selectable>, RegistryError> {
    let parse = |field: &SelectableField| {
        let path = JsonPath::parse(&field.json_path).map_err(|source| bad_path(name, version, source))?;
        Ok(Selectable { field: String::from(field.json_path.trim_start_matches('.')), path })
    };
    version.selectable_fields.iter().map(parse).collect()
}

fn bad_path(name: &str, version: &Version, source: PathError) -> RegistryError {
    RegistryError::Path { name: String::from(name), version: version.name.clone(), source }
}

fn view(id: ResourceId, spec: &Spec, version: &Version, form: Form, name: &str) -> Result<View, RegistryError> {
    let fallback = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let document = version.schema.as_ref().and_then(|schema| schema.open_api.clone()).unwrap_or(fallback);
    let (name, at) = (String::from(name), version.name.clone());
    let mut schema = Schema::parse(&document).map_err(|source| RegistryError::Schema {
        name: name.clone(),
        version: at.clone(),
        source,
    })?;
    own_root(&mut schema);
    let rules = Rules::compile(&document);
    Ok(View {
        resource: id,
        group: spec.group.clone(),
        version: version.name.clone(),
        form,
        status: version.subresources.status.is_some(),
        schema,
        rules: rules.map_err(|source| RegistryError::Rules { name: name.clone(), version: at, source })?,
        columns: columns(version, &name)?,
        document,
    })
}

/// The root of an object has type, identity and metadata whatever the schema says; metadata has a schema of its own.
fn own_root(schema: &mut Schema) {
    for field in ["apiVersion", "kind", "metadata"] {
        schema.properties.remove(field);
    }
    schema.embedded = true;
    if let Additional::Typed(_) = schema.additional {
        schema.additional = Additional::Kept;
    }
}

fn columns(version: &Version, name: &str) -> Result<Vec<Column>, RegistryError> {
    if version.additional_printer_columns.is_empty() {
        return Ok(vec![
            age_column(&[".metadata.creationTimestamp"]).map_err(|source| bad_path(name, version, source))?,
        ]);
    }
    let build = |column: &PrinterColumn| {
        let path = JsonPath::parse(&column.json_path).map_err(|source| bad_path(name, version, source))?;
        Ok(Column {
            name: column.name.clone(),
            kind: column.kind.clone(),
            format: column.format.clone(),
            description: column.description.clone(),
            priority: column.priority,
            cell: if column.kind == "date" { Cell::Age(vec![path]) } else { Cell::Path(path) },
        })
    };
    version.additional_printer_columns.iter().map(build).collect()
}

/// The column that every table ends with when nothing else is declared.
pub(super) fn age_column(paths: &[&str]) -> Result<Column, PathError> {
    Ok(Column {
        name: String::from("Age"),
        kind: String::from("date"),
        format: String::new(),
        description: String::from("Time since the object was created."),
        priority: 0,
        cell: Cell::Age(paths.iter().map(|path| JsonPath::parse(path)).collect::<Result<_, _>>()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                          "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    #[test]
    fn faults_are_named() {
        let cases: [(&str, Value, &str); 5] = [
            ("/spec/scope", json!("Everywhere"), "not readable"),
            ("/spec/versions/0/storage", json!(false), "exactly one version"),
            ("/spec/versions/0/schema/openAPIV3Schema", json!({"type": "odd"}), "version v1"),
            (
                "/spec/versions/0/schema/openAPIV3Schema",
                json!({"type": "object", "x-kubernetes-validations": [{"rule": "("}]}),
                "version v1",
            ),
            ("/spec/group", json!(""), "no error"),
        ];
        for (pointer, value, expected) in cases {
            let mut changed = document();
            *changed.pointer_mut(pointer).expect(pointer) = value;
            let found = Registry::build(&[changed]).err().map_or(String::from("no error"), |error| error.to_string());
            assert!(found.contains(expected), "{pointer}: {found}");
        }
        let twice = Registry::build(&[document(), document()]).err().map(|error| error.to_string());
        assert!(twice.is_some_and(|text| text.contains("registered already")));
    }
}
