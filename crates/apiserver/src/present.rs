//! How objects are shown: whole, as their metadata alone, or as a table.
//!
//! Holds: objects in stored form go out byte for byte as they are stored; every other form is made from them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::list::Page;
use crate::registry::column::Column;
use crate::registry::{Form, Nature, Registry, ViewId};
use crate::store::Stored;
use crate::table::{self, Include};

/// What the client wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Whole,
    Partial,
    Table { include: Include, beta: bool },
}

/// Shows objects of one view to one client.
#[derive(Debug, Clone)]
pub(crate) struct Presenter {
    pub(crate) registry: Arc<Registry>,
    pub(crate) view: ViewId,
    pub(crate) look: Look,
}

impl Presenter {
    /// One object.
    pub(crate) fn object(&self, stored: &Stored, now: Timestamp) -> Vec<u8> {
        match (self.look, self.registry.view(self.view).form) {
            (Look::Whole, Form::Stored) => stored.json.to_vec(),
            (Look::Whole, Form::Relabelled | Form::Renamed(_)) => text(&self.served(stored.object())),
            (Look::Partial, _) => text(&table::partial(&self.served(stored.object()))),
            (Look::Table { include, beta }, _) => {
                let version = json!({"resourceVersion": stored.revision.to_string()});
                text(&self.table(&[stored], version, include, beta, now))
            }
        }
    }

    /// An object that is not stored, in the form of this view.
    pub(crate) fn imagined(&self, object: &Value, now: Timestamp) -> Vec<u8> {
        match self.look {
            Look::Whole => text(object),
            Look::Partial => text(&table::partial(object)),
            Look::Table { include, beta } => {
                let storage = self.registry.view(self.registry.resource_of(self.view).storage);
                let stored = self.registry.view(self.view).to_stored(object.clone(), storage);
                let row = table::row(self.columns(), self.is_named(), &stored, object, include, now);
                text(&self.framed(vec![row], json!({}), beta))
            }
        }
    }

    /// A page of a list.
    pub(crate) fn list(&self, page: &Page, now: Timestamp) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some(more) = &page.more {
            metadata["continue"] = json!(more);
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        if let Look::Table { include, beta } = self.look {
            let items: Vec<&Stored> = page.items.iter().map(AsRef::as_ref).collect();
            return text(&self.table(&items, metadata, include, beta, now));
        }
        let (kind, api_version) = self.list_identity();
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
            json!(kind),
            json!(api_version)
        );
        let mut bytes = head.into_bytes();
        for (index, stored) in page.items.iter().enumerate() {
            if index > 0 {
                bytes.push(b',');
            }
            bytes.extend_from_slice(&self.object(stored, now));
        }
        bytes.extend_from_slice(b"]}");
        bytes
    }

    /// One event of a watch, ended by a newline.
    pub(crate) fn event(&self, kind: &str, stored: &Stored, now: Timestamp) -> Vec<u8> {
        framed_event(kind, &self.object(stored, now))
    }

    /// A bookmark: everything up to this version was sent.
    pub(crate) fn bookmark(&self, revision: u64, ends_initial: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.look {
            Look::Whole => {
                let kind = self.registry.resource_of(self.view).kind.as_str();
                json!({"kind": kind, "apiVersion": self.registry.view(self.view).api_version(), "metadata": metadata})
            }
            Look::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Look::Table { include: _, beta } => self.framed(Vec::new(), metadata, beta),
        };
        framed_event("BOOKMARK", object.to_string().as_bytes())
    }

    fn list_identity(&self) -> (String, String) {
        match self.look {
            Look::Partial => (String::from("PartialObjectMetadataList"), String::from("meta.k8s.io/v1")),
            Look::Whole | Look::Table { .. } => {
                (self.registry.resource_of(self.view).list_kind.clone(), self.registry.view(self.view).api_version())
            }
        }
    }

    fn served(&self, object: Value) -> Value {
        self.registry.view(self.view).to_served(object)
    }

    /// Columns are about the stored form; a view without its own has those of the stored one.
    fn columns(&self) -> &[Column] {
        let own = &self.registry.view(self.view).columns;
        if own.is_empty() { &self.registry.view(self.registry.resource_of(self.view).storage).columns } else { own }
    }

    /// A table of events begins with when they were seen, as kubectl's users know it.
    fn is_named(&self) -> bool {
        self.registry.resource_of(self.view).nature != Nature::Event
    }

    fn table(&self, items: &[&Stored], metadata: Value, include: Include, beta: bool, now: Timestamp) -> Value {
        let rows = items.iter().map(|stored| {
            let object = stored.object();
            let served = self.served(object.clone());
            table::row(self.columns(), self.is_named(), &object, &served, include, now)
        });
        let rows = rows.collect();
        self.framed(rows, metadata, beta)
    }

    fn framed(&self, rows: Vec<Value>, metadata: Value, beta: bool) -> Value {
        let api_version = if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
        let columns = table::columns(self.columns(), self.is_named());
        json!({"kind": "Table", "apiVersion": api_version, "metadata": metadata, "columnDefinitions": columns, "rows": rows})
    }
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// One line of a watch.
pub(crate) fn framed_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line
}
