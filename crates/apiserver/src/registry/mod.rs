//! The kinds that are served: what is stored, under which names, in which versions.
//!
//! Holds: kinds are data. They come from CustomResourceDefinition documents, the built-in ones from documents in this
//! crate, and never change while a server is open. Code that treats a kind specially asks for its [`Nature`].

mod access;
pub(crate) mod builtin;
mod cluster;
pub(crate) mod column;
pub(crate) mod crd;

use serde_json::Value;

use crate::jsonpath::JsonPath;
use crate::refusal::{GroupKind, GroupResource};
use crate::rules::Rules;
use crate::schema::Schema;
use column::Column;

pub use cluster::ClusterKind;
pub use crd::RegistryError;

/// The place of a resource in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourceId(pub(crate) usize);

/// The place of a view in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ViewId(pub(crate) usize);

/// Kinds that have rules of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Nothing special: what a CustomResourceDefinition declares.
    Custom,
    Namespace,
    Secret,
    Event,
    Lease,
    /// ServiceAccounts, roles and their bindings.
    Access(AccessKind),
    /// What a cluster has and a single host has not; registered where it is asked for.
    Cluster(ClusterKind),
}

/// The kinds of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessKind {
    ServiceAccount,
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

impl AccessKind {
    /// Whether this is a role or a binding of one.
    fn is_rbac(self) -> bool {
        match self {
            AccessKind::ServiceAccount => false,
            AccessKind::Role | AccessKind::ClusterRole | AccessKind::RoleBinding | AccessKind::ClusterRoleBinding => {
                true
            }
        }
    }
}

impl Nature {
    /// Whether the API server counts changes of such an object's spec.
    pub(crate) fn has_generation(self) -> bool {
        match self {
            Nature::Custom => true,
            Nature::Namespace
            | Nature::Secret
            | Nature::Event
            | Nature::Lease
            | Nature::Access(_)
            | Nature::Cluster(_) => false,
        }
    }

    /// Whether an update may come without a resourceVersion.
    pub(crate) fn takes_unconditional_update(self) -> bool {
        match self {
            Nature::Custom | Nature::Lease => false,
            Nature::Namespace | Nature::Secret | Nature::Event | Nature::Access(_) | Nature::Cluster(_) => true,
        }
    }

    /// Whether an update creates what does not exist.
    pub(crate) fn creates_on_update(self) -> bool {
        match self {
            Nature::Event | Nature::Lease => true,
            Nature::Access(kind) => kind.is_rbac(),
            Nature::Custom | Nature::Namespace | Nature::Secret | Nature::Cluster(_) => false,
        }
    }

    /// Whether a new object may come with its status.
    pub(crate) fn begins_with_status(self) -> bool {
        self == Nature::Cluster(ClusterKind::Node)
    }

    /// Whether strategic merge patches are understood.
    pub(crate) fn takes_strategic_merge(self) -> bool {
        match self {
            Nature::Custom => false,
            Nature::Namespace
            | Nature::Secret
            | Nature::Event
            | Nature::Lease
            | Nature::Access(_)
            | Nature::Cluster(_) => true,
        }
    }
}

/// A field that field selectors may name.
#[derive(Debug)]
pub(crate) struct Selectable {
    /// Without a leading dot: `spec.nodeName`.
    pub(crate) field: String,
    pub(crate) path: JsonPath,
}

/// What is stored: one resource, whatever the versions it is seen in.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) nature: Nature,
    pub(crate) selectable: Vec<Selectable>,
    /// The view whose form is the stored one.
    pub(crate) storage: ViewId,
}

/// How the form of a view differs from the stored form.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// Not at all.
    Stored,
    /// In `apiVersion` only (conversion strategy None).
    Relabelled,
    /// In `apiVersion` and in the names of top-level fields: (stored, served).
    Renamed(&'static [(&'static str, &'static str)]),
}

/// One resource as one API version serves it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) resource: ResourceId,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) form: Form,
    /// Whether there is a status subresource.
    pub(crate) status: bool,
    pub(crate) schema: Schema,
    pub(crate) rules: Option<Rules>,
    pub(crate) columns: Vec<Column>,
    /// The schema as it was declared, for OpenAPI.
    pub(crate) document: Value,
}

impl View {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The stored form of an object seen through this view.
    pub(crate) fn to_stored(&self, object: Value, storage: &View) -> Value {
        match self.form {
            Form::Stored => object,
            Form::Relabelled => relabelled(object, &storage.api_version()),
            Form::Renamed(names) => {
                let back: Vec<(&str, &str)> = names.iter().map(|(stored, served)| (*served, *stored)).collect();
                relabelled(renamed(object, &back), &storage.api_version())
            }
        }
    }

    /// A stored object as this view shows it.
    pub(crate) fn to_served(&self, object: Value) -> Value {
        match self.form {
            Form::Stored => object,
            Form::Relabelled => relabelled(object, &self.api_version()),
            Form::Renamed(names) => relabelled(renamed(object, names), &self.api_version()),
        }
    }

    /// The stored name of a field that a selector of this view names.
    pub(crate) fn stored_field(&self, field: &str) -> String {
        let (first, rest) = field.split_once('.').map_or((field, ""), |(first, rest)| (first, rest));
        let stored = match self.form {
            Form::Stored | Form::Relabelled => first,
            Form::Renamed(names) => {
                names.iter().find(|(_, served)| *served == first).map_or(first, |(stored, _)| *stored)
            }
        };
        if rest.is_empty() { String::from(stored) } else { format!("{stored}.{rest}") }
    }
}

fn relabelled(mut object: Value, api_version: &str) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(String::from("apiVersion"), Value::from(api_version));
    }
    object
}

fn renamed(mut object: Value, names: &[(&str, &str)]) -> Value {
    if let Some(fields) = object.as_object_mut() {
        let moved: Vec<(String, Value)> =
            names.iter().filter_map(|(from, to)| Some((String::from(*to), fields.remove(*from)?))).collect();
        fields.extend(moved);
    }
    object
}

/// All kinds of one server.
#[derive(Debug)]
pub(crate) struct Registry {
    resources: Vec<Resource>,
    views: Vec<View>,
}

impl Registry {
    /// The built-in kinds and those of the documents.
    #[cfg(test)]
    pub(crate) fn build(documents: &[Value]) -> Result<Registry, RegistryError> {
        Registry::with_kinds(documents, &[])
    }

    /// The built-in kinds, those of clusters that are wanted, and those of the documents.
    pub(crate) fn with_kinds(documents: &[Value], kinds: &[ClusterKind]) -> Result<Registry, RegistryError> {
        let mut registry = Registry { resources: Vec::new(), views: Vec::new() };
        builtin::register(&mut registry)?;
        for kind in kinds {
            cluster::register(&mut registry, *kind)?;
        }
        for document in documents {
            crd::register(&mut registry, document, Nature::Custom)?;
        }
        Ok(registry)
    }

    pub(crate) fn resource(&self, id: ResourceId) -> &Resource {
        &self.resources[id.0]
    }

    pub(crate) fn view(&self, id: ViewId) -> &View {
        &self.views[id.0]
    }

    /// The resource a view shows.
    pub(crate) fn resource_of(&self, view: ViewId) -> &Resource {
        self.resource(self.view(view).resource)
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = (ResourceId, &Resource)> {
        self.resources.iter().enumerate().map(|(index, resource)| (ResourceId(index), resource))
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = (ViewId, &View)> {
        self.views.iter().enumerate().map(|(index, view)| (ViewId(index), view))
    }

    /// The view that serves a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<ViewId> {
        let found = self.views().find(|(_, view)| {
            view.group == group && view.version == version && self.resource(view.resource).plural == plural
        });
        found.map(|(id, _)| id)
    }

    /// The resource that an owner reference means.
    pub(crate) fn find_kind(&self, api_version: &str, kind: &str) -> Option<ResourceId> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let found = self.views().find(|(_, view)| view.group == group && self.resource(view.resource).kind == kind);
        found.map(|(_, view)| view.resource)
    }

    /// The resource of that nature. There is one of each built-in nature.
    pub(crate) fn find_nature(&self, nature: Nature) -> Option<ResourceId> {
        self.resources().find(|(_, resource)| resource.nature == nature).map(|(id, _)| id)
    }

    /// Group and plural of a view, as errors name it.
    pub(crate) fn group_resource(&self, view: ViewId) -> GroupResource {
        let resource = self.resource_of(view).plural.clone();
        GroupResource { group: self.view(view).group.clone(), resource }
    }

    /// Group and kind of a view, as errors name it.
    pub(crate) fn group_kind(&self, view: ViewId) -> GroupKind {
        GroupKind { group: self.view(view).group.clone(), kind: self.resource_of(view).kind.clone() }
    }
}
