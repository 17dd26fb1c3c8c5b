//! Who owns which field: `managedFields`, kept for every write, and server-side apply, which is decided by them.
//!
//! Holds: what a write changes is its manager's, and nobody else's any more; what two managers applied with the same value
//! is both's. An apply changes nothing that another manager owns unless forced, and removes only what its manager alone
//! had applied. A field that a write cannot change (the status by a write of the main part, everything else by one of the
//! status) is never owned through it. Nothing in here reads or writes the store.

mod apply;
mod check;
mod compare;
mod entries;
mod fields;
mod merge;
mod topology;
mod wire;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) use apply::Refused;
pub(crate) use entries::{Entry, brought, read, same_but_for_times, write};

use crate::registry::{ClusterKind, Nature, Registry, View, ViewId};
use compare::{Diff, compare};
use entries::{Operation, cap};
use fields::{FieldSet, Step};
use topology::Node;

/// Who writes, through which view, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) view: ViewId,
    /// Empty: nobody said.
    pub(crate) manager: &'a str,
    /// Empty: the main resource.
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

/// Fields that say which object it is or that only the server sets: nobody owns them.
const NOBODYS: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

static NOBODYS_SET: LazyLock<FieldSet> = LazyLock::new(|| NOBODYS.into_iter().map(path).collect());

fn path(names: &[&str]) -> Vec<Step> {
    names.iter().map(|name| Step::Field(String::from(*name))).collect()
}

/// Parts of the built-in kinds that are always there, so that nobody brings them.
fn always_there(nature: Nature) -> FieldSet {
    let parts: &[&[&str]] = match nature {
        Nature::Custom | Nature::Secret | Nature::Access(_) => &[],
        Nature::Cluster(
            ClusterKind::ConfigMap
            | ClusterKind::VolumeSnapshot
            | ClusterKind::VolumeSnapshotClass
            | ClusterKind::VolumeSnapshotContent,
        ) => &[],
        Nature::Cluster(
            ClusterKind::Node | ClusterKind::PersistentVolume | ClusterKind::PersistentVolumeClaim | ClusterKind::Pod,
        ) => &[&["spec"], &["status"]],
        Nature::Namespace => &[&["spec"], &["spec", "finalizers"], &["status"]],
        Nature::Event => &[&["source"], &["deprecatedSource"]],
        Nature::Lease => &[&["spec"]],
    };
    parts.iter().map(|names| path(names)).collect()
}

impl<'a> Author<'a> {
    fn view(&self) -> &'a View {
        self.registry.view(self.view)
    }

    fn entry(&self, manager: &str, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: String::from(if manager.is_empty() { "unknown" } else { manager }),
            operation,
            api_version: self.view().api_version(),
            subresource: String::from(self.subresource),
            time: None,
            fields,
        }
    }

    /// The view of the same resource in another version, when it is still served.
    fn view_at(&self, api_version: &str) -> Option<ViewId> {
        let resource = self.view().resource;
        let found =
            self.registry.views().find(|(_, view)| view.resource == resource && view.api_version() == api_version);
        found.map(|(id, _)| id)
    }

    /// An object of one version in another.
    fn convert(&self, object: &Value, from: ViewId, to: ViewId) -> Value {
        if from == to {
            return object.clone();
        }
        let storage = self.registry.view(self.registry.resource_of(from).storage);
        self.registry.view(to).to_served(self.registry.view(from).to_stored(object.clone(), storage))
    }

    fn node(&self, view: ViewId) -> Node<'a> {
        Node::Typed(&self.registry.view(view).schema)
    }

    /// Whether a write through this part of the object can change the top-level field.
    fn reaches(&self, step: &Step) -> bool {
        let Step::Field(name) = step else {
            return true;
        };
        let is_status = name == "status" && self.view().status;
        if self.subresource.is_empty() { !is_status } else { is_status }
    }

    /// What of a set can be owned.
    fn ownable(&self, set: &FieldSet) -> FieldSet {
        let nature = self.registry.resource_of(self.view).nature;
        set.difference(&NOBODYS_SET).difference(&always_there(nature)).filtered(|step| self.reaches(step))
    }

    /// The entries after a write that is no apply. `old` is none for a creation. Without entries an existing object is
    /// not tracked: nobody has applied it since its entries were taken away.
    pub(crate) fn update(&self, old: Option<&Value>, new: &Value, mut entries: Vec<Entry>) -> Vec<Entry> {
        if entries.is_empty() && old.is_some() {
            return entries;
        }
        let nothing = json!({});
        let mut diffs = Diffs::new(self, old.unwrap_or(&nothing), new);
        entries.retain_mut(|entry| match diffs.at(&entry.api_version) {
            None => false,
            Some(diff) => {
                entry.fields = entry.fields.difference(&diff.changed).difference(&diff.removed);
                !entry.fields.is_empty()
            }
        });
        let changed = self.ownable(&compare(self.node(self.view), old.unwrap_or(&nothing), new).changed);
        if !changed.is_empty() {
            let mut mine = self.entry(self.manager, Operation::Update, changed);
            mine.time = Some(self.now);
            match entries.iter_mut().find(|entry| entry.is_of(&mine)) {
                None => entries.push(mine),
                Some(entry) => {
                    entry.fields = entry.fields.union(&mine.fields);
                    entry.time = mine.time;
                }
            }
        }
        cap(&mut entries);
        entries
    }
}

/// How one object differs from another, in the terms of each version that is asked for.
struct Diffs<'d> {
    author: &'d Author<'d>,
    old: &'d Value,
    new: &'d Value,
    known: BTreeMap<String, Option<Diff>>,
}

impl<'d> Diffs<'d> {
    fn new(author: &'d Author<'d>, old: &'d Value, new: &'d Value) -> Diffs<'d> {
        Diffs { author, old, new, known: BTreeMap::new() }
    }

    /// None: the version is not served any more.
    fn at(&mut self, api_version: &str) -> Option<&Diff> {
        let Diffs { author, old, new, known } = self;
        let diff = known.entry(String::from(api_version)).or_insert_with(|| {
            let view = author.view_at(api_version)?;
            let converted = |object| author.convert(object, author.view, view);
            Some(compare(author.node(view), &converted(old), &converted(new)))
        });
        diff.as_ref()
    }
}

#[cfg(test)]
mod tests;
