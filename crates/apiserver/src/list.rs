//! Lists: what is selected, one page at a time, all pages of one list at one resource version.
//!
//! Holds: a page is consistent; when the version of a list can no longer be shown, the answer is 410, never a mixture.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::refusal::{Cause, Refusal};
use crate::registry::{Registry, ResourceId, ViewId};
use crate::selector::{FieldSelector, LabelSelector};
use crate::store::{Key, State, Stored};

/// Where a field selector looks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FieldAt {
    Name,
    Namespace,
    /// The selectable field of that number.
    Selectable(usize),
}

/// Which objects of a resource are meant.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// None: all namespaces.
    namespace: Option<String>,
    labels: LabelSelector,
    fields: Vec<(FieldAt, String, bool)>,
}

impl Filter {
    /// The filter of a request on a view.
    pub(crate) fn new(
        registry: &Registry,
        view: ViewId,
        namespace: &str,
        labels: &LabelSelector,
        fields: &FieldSelector,
    ) -> Result<Filter, Refusal> {
        let resource = registry.resource_of(view);
        let locate = |field: &str| {
            let stored = registry.view(view).stored_field(field);
            match field {
                "metadata.name" => Some(FieldAt::Name),
                "metadata.namespace" if resource.namespaced => Some(FieldAt::Namespace),
                // What a client of core/v1 events calls their source.
                "source" => {
                    resource.selectable.iter().position(|at| at.field == "source.component").map(FieldAt::Selectable)
                }
                _ => resource.selectable.iter().position(|at| at.field == stored).map(FieldAt::Selectable),
            }
        };
        let fields = fields.terms.iter().map(|term| {
            let at = locate(&term.field);
            let at = at.ok_or_else(|| Refusal::BadRequest(format!("field label not supported: {}", term.field)))?;
            Ok((at, term.value.clone(), term.equal))
        });
        Ok(Filter {
            namespace: (!namespace.is_empty()).then(|| String::from(namespace)),
            labels: labels.clone(),
            fields: fields.collect::<Result<_, Refusal>>()?,
        })
    }

    /// Whether anything but the namespace narrows the list.
    pub(crate) fn selects(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    pub(crate) fn accepts(&self, namespace: &str, name: &str, stored: &Stored) -> bool {
        let fits = |(at, value, equal): &(FieldAt, String, bool)| {
            let found = match at {
                FieldAt::Name => name,
                FieldAt::Namespace => namespace,
                FieldAt::Selectable(index) => stored.fields.get(*index).map_or("", String::as_str),
            };
            (found == value) == *equal
        };
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.fields.iter().all(fits)
            && self.labels.matches(&stored.labels)
    }

    pub(crate) fn accepts_key(&self, key: &Key, stored: &Stored) -> bool {
        self.accepts(&key.namespace, &key.name, stored)
    }
}

/// Which version of the list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// The latest.
    Latest,
    /// Any that is at least this.
    NotOlderThan(u64),
    /// This one.
    Exact(u64),
    /// The rest of a list, as an earlier page said.
    Continue(String),
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) items: Vec<Arc<Stored>>,
    /// What to ask for next.
    pub(crate) more: Option<String>,
    /// How many come after this page; not known when something is selected.
    pub(crate) remaining: Option<usize>,
}

/// What a continue token says.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    revision: u64,
    namespace: String,
    name: String,
}

const STALE: &str = "The provided continue parameter is too old to display a consistent list result. You must start a new \
     list without the continue parameter.";

/// One page of the list.
pub(crate) fn page(
    state: &State,
    registry: &Registry,
    view: ViewId,
    filter: &Filter,
    version: &Version,
    limit: usize,
) -> Result<Page, Refusal> {
    let current = state.revision();
    let (revision, after) = match version {
        Version::Latest => (current, None),
        Version::NotOlderThan(asked) => (refuse_future(*asked, current).map(|()| current)?, None),
        Version::Exact(asked) => (refuse_future(*asked, current).map(|()| *asked)?, None),
        Version::Continue(token) => {
            let token = read_token(token)?;
            refuse_future(token.revision, current)?;
            (token.revision, Some((token.namespace, token.name)))
        }
    };
    if revision < state.floor() {
        return Err(Refusal::Expired(match version {
            Version::Continue(_) => String::from(STALE),
            Version::Latest | Version::NotOlderThan(_) | Version::Exact(_) => {
                format!("The resourceVersion for the provided list is too old: {revision} ({})", state.floor())
            }
        }));
    }
    let resource = registry.view(view).resource;
    let table = state.table(resource);
    if revision == current {
        return Ok(cut(table.iter(), filter, revision, after.as_ref(), limit));
    }
    let undone: Vec<(Place, Option<&Arc<Stored>>)> = undone(state, resource, revision);
    let mut then: BTreeMap<&Place, &Arc<Stored>> = table.iter().collect();
    for (place, stored) in &undone {
        match stored {
            Some(stored) => drop(then.insert(place, stored)),
            None => drop(then.remove(place)),
        }
    }
    Ok(cut(then.into_iter(), filter, revision, after.as_ref(), limit))
}

/// Namespace and name.
type Place = (String, String);

/// What objects were at a revision, for those that changed since.
fn undone(state: &State, resource: ResourceId, revision: u64) -> Vec<(Place, Option<&Arc<Stored>>)> {
    // Latest first, so that the oldest change, which knows what was there before, comes last and wins.
    let changes = state.changes_after(revision).rev().filter(|change| change.key.resource == resource);
    changes.map(|change| ((change.key.namespace.clone(), change.key.name.clone()), change.old.as_ref())).collect()
}

fn refuse_future(asked: u64, current: u64) -> Result<(), Refusal> {
    if asked > current { Err(Refusal::RevisionTooLarge { asked, current }) } else { Ok(()) }
}

fn cut<'a>(
    entries: impl Iterator<Item = (&'a Place, &'a Arc<Stored>)>,
    filter: &Filter,
    revision: u64,
    after: Option<&Place>,
    limit: usize,
) -> Page {
    let mut wanted = entries
        .filter(|(place, _)| after.is_none_or(|after| *place > after))
        .filter(|((namespace, name), stored)| filter.accepts(namespace, name, stored));
    let mut items = Vec::new();
    let mut last = None;
    for (place, stored) in wanted.by_ref() {
        items.push(Arc::clone(stored));
        last = Some(place);
        if limit > 0 && items.len() == limit {
            break;
        }
    }
    let remaining = if limit > 0 && items.len() == limit { wanted.count() } else { 0 };
    let more = last.filter(|_| remaining > 0).map(|(namespace, name)| {
        let token = Token { revision, namespace: namespace.clone(), name: name.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_string(&token).unwrap_or_default())
    });
    Page { revision, items, more, remaining: (remaining > 0 && !filter.selects()).then_some(remaining) }
}

fn read_token(text: &str) -> Result<Token, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
        Refusal::BadRequest(String::from("continue key is not valid: it was not given out by this server"))
    })
}

/// A refusal of list or watch options.
pub(crate) fn bad_option(field: &str, detail: &str) -> Refusal {
    Refusal::invalid_options("ListOptions", Cause::forbidden(field, detail))
}
