//! Server-side apply: merging an applied object into the one that stands, with ownership as the judge.
//!
//! Holds: applying the same twice changes nothing; a conflict is reported whole, and nothing is done.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check;
use super::compare::{compare, field_set, with_declared};
use super::entries::{Entry, Operation};
use super::fields::{FieldSet, Step, shown};
use super::merge::{merge, remove};
use super::{Author, Diffs};
use crate::metadata;
use crate::registry::ViewId;

/// The manager to whom an object belongs that was not tracked before it was first applied.
const BEFORE: &str = "before-first-apply";

/// The manager whose applies continue what it applied from the client's side before.
const KUBECTL: &str = "kubectl";

/// Where client-side apply keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What an apply makes of an object.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) object: Value,
    pub(crate) entries: Vec<Entry>,
}

/// Why an apply is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The applied object does not fit the schema.
    Unfit(String),
    /// Others own what would change: each manager and field.
    Conflicts(Vec<(String, String)>),
}

/// One field that another manager owns.
#[derive(Debug, Clone)]
struct Conflict {
    manager: String,
    path: Vec<Step>,
}

impl Author<'_> {
    /// Applies the object. `live` is none when there is nothing yet.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) fn apply(
        &self,
        live: Option<&Value>,
        applied: &Value,
        mut entries: Vec<Entry>,
        force: bool,
    ) -> Result<Applied, Refused> {
        let faults = check::faults(self.node(self.view), applied);
        if !faults.is_empty() {
            return Err(Refused::Unfit(check::joined(&faults)));
        }
        let nothing = json!({});
        if let Some(live) = live.filter(|_| entries.is_empty()) {
            let all = self.ownable(&compare(self.node(self.view), &nothing, live).changed);
            entries.push(Entry { time: Some(self.now), ..self.entry(BEFORE, Operation::Update, all) });
        }
        let live = live.unwrap_or(&nothing);
        let result = match self.merged(live, applied, entries.clone(), force) {
            Err(conflicts) if self.manager == KUBECTL => {
                let settled = self.applied_by_client(live);
                let open: Vec<Conflict> =
                    conflicts.into_iter().filter(|conflict| !settled.contains(&conflict.path)).collect();
                if open.is_empty() { self.merged(live, applied, entries, true) } else { Err(open) }
            }
            other => other,
        };
        let mut result = result.map_err(|conflicts| {
            Refused::Conflicts(conflicts.into_iter().map(|one| (one.manager, shown(&one.path))).collect())
        })?;
        if self.manager == KUBECTL {
            remember(&mut result.object, applied);
        }
        Ok(result)
    }

    fn merged(
        &self,
        live: &Value,
        applied: &Value,
        mut entries: Vec<Entry>,
        force: bool,
    ) -> Result<Applied, Vec<Conflict>> {
        let node = self.node(self.view);
        let fields = field_set(node, applied).filtered(|step| self.reaches(step));
        let mut mine = self.entry(self.manager, Operation::Apply, fields);
        let last = entries.iter().position(|entry| entry.is_of(&mine)).map(|at| entries.remove(at));
        mine.time = last.as_ref().and_then(|last| last.time);
        let merged = merge(node, live, applied);
        let object = last.map_or_else(|| merged.clone(), |last| self.pruned(&merged, &last, &mine, &entries));
        self.take_over(live, &object, &mut entries, force)?;
        mine.fields = self.ownable(&mine.fields);
        if object != *live {
            mine.time = Some(self.now);
        }
        if !mine.fields.is_empty() {
            entries.push(mine);
        }
        Ok(Applied { object, entries })
    }

    /// Takes from the others what the apply changes, or answers what stands against it.
    fn take_over(
        &self,
        live: &Value,
        object: &Value,
        entries: &mut Vec<Entry>,
        force: bool,
    ) -> Result<(), Vec<Conflict>> {
        let mut diffs = Diffs::new(self, live, object);
        let mut conflicts = Vec::new();
        entries.retain_mut(|entry| {
            let Some(diff) = diffs.at(&entry.api_version) else {
                return false;
            };
            let changed = diff.changed.clone().filtered(|step| self.reaches(step));
            let removed = diff.removed.clone().filtered(|step| self.reaches(step));
            let manager = entry.shown();
            let contested = entry.fields.intersection(&changed);
            conflicts.extend(contested.paths().into_iter().map(|path| Conflict { manager: manager.clone(), path }));
            entry.fields = entry.fields.difference(&contested).difference(&removed);
            !entry.fields.is_empty()
        });
        conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
        if force || conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
    }

    /// Takes out of the merged object what was applied last time, is not applied now, and nobody else owns.
    fn pruned(&self, merged: &Value, last: &Entry, mine: &Entry, others: &[Entry]) -> Value {
        let Some(then) = self.view_at(&last.api_version) else {
            return merged.clone();
        };
        let gone = |view: ViewId, object: &Value, set: &FieldSet| remove(self.node(view), object, set);
        let declared = |view: ViewId, set: &FieldSet| with_declared(self.node(view), set);
        let there = |view: ViewId, object: &Value| declared(view, &field_set(self.node(view), object));
        let before = self.convert(merged, self.view, then);
        let last_set = declared(then, &last.fields);
        let mut view = then;
        let mut pruned = gone(then, &before, &last_set);
        // What anybody owns is put back, in the terms of each version; that of the last apply comes first.
        let mut versions: BTreeSet<(bool, &str)> = BTreeSet::new();
        for entry in others.iter().chain([mine]) {
            versions.insert((entry.api_version != last.api_version, entry.api_version.as_str()));
        }
        for (_, version) in versions {
            let Some(next) = self.view_at(version) else {
                continue;
            };
            let whole = self.convert(merged, self.view, next);
            let rest = self.convert(&pruned, view, next);
            let owned = others.iter().chain([mine]).filter(|entry| entry.api_version == version);
            let owned = owned.fold(FieldSet::default(), |all, entry| all.union(&entry.fields));
            let kept = there(next, &rest).union(&declared(next, &owned));
            pruned = gone(next, &whole, &there(next, &whole).difference(&kept));
            view = next;
        }
        // What goes along with a part, though it was not applied, is put back too.
        let rest = there(then, &self.convert(&pruned, view, then));
        let removed = there(then, &before).difference(&rest).intersection(&last_set);
        self.convert(&gone(then, &before, &removed), then, self.view)
    }

    /// The fields that client-side apply wrote last and that still have the values it gave them.
    fn applied_by_client(&self, live: &Value) -> FieldSet {
        let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
        let Ok(applied) = serde_json::from_str::<Value>(text) else {
            return FieldSet::default();
        };
        if applied["apiVersion"] != self.view().api_version() {
            return FieldSet::default();
        }
        let node = self.node(self.view);
        let diff = compare(node, &applied, live);
        field_set(node, &applied).difference(&diff.changed).difference(&diff.removed)
    }
}

/// Keeps client-side apply's memory of what was applied last in step, so that a user may go back to it.
fn remember(object: &mut Value, applied: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if !annotations.contains_key(LAST_APPLIED) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    annotations.insert(String::from(LAST_APPLIED), Value::from(format!("{applied}\n")));
    if !metadata::annotations_fit(annotations) {
        annotations.remove(LAST_APPLIED);
    }
}
