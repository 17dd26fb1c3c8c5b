//! Reading: get, list and watch.
//!
//! Holds: reads come from memory and wait for nothing but, in a watch, the next change.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;

use super::body::ApiBody;
use super::route::Place;
use super::{Asked, accept, json, with};
use crate::list::{self, Filter, Version, bad_option};
use crate::present::Presenter;
use crate::refusal::{Cause, Refusal};
use crate::selector::{FieldSelector, LabelSelector};
use crate::server::Server;
use crate::store::Key;
use crate::table::Include;
use crate::watch::{self, Start};

/// How long a watch lasts that does not say.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How objects are to be shown to this client.
pub(super) fn presenter(server: &Server, asked: &Asked, place: &Place) -> Result<Presenter, Refusal> {
    let include = match asked.query.get("includeObject") {
        "" | "Metadata" => Include::Metadata,
        "None" => Include::None,
        "Object" => Include::Object,
        other => return Err(Refusal::BadRequest(format!("unrecognized includeObject value: {other:?}"))),
    };
    let look = accept::look(&asked.headers, include)?;
    Ok(Presenter { registry: Arc::clone(&server.core.registry), view: place.view, look })
}

/// The filter of a request.
pub(super) fn filter(server: &Server, asked: &Asked, place: &Place) -> Result<Filter, Refusal> {
    let labels = LabelSelector::parse(asked.query.get("labelSelector"))?;
    let mut fields = FieldSelector::parse(asked.query.get("fieldSelector"))?;
    // A watch may be asked of one object's path; it is the watch of a list that holds this one.
    if let Some(name) = &place.name {
        fields.terms.extend(FieldSelector::parse(&format!("metadata.name={name}"))?.terms);
    }
    Filter::new(&server.core.registry, place.view, &place.namespace, &labels, &fields)
}

/// A version that a client names; none for "whatever there is".
fn asked_version(text: &str) -> Result<Option<u64>, Refusal> {
    match text {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Refusal::BadRequest(format!("resourceVersion: Invalid value: {text:?}: it is none this server gave out"))
        }),
    }
}

pub(super) fn get(server: &Server, asked: &Asked, place: &Place) -> Result<Response<ApiBody>, Refusal> {
    let presenter = presenter(server, asked, place)?;
    let name = place.name.clone().unwrap_or_default();
    let version = asked_version(asked.query.get("resourceVersion"))?;
    let resource = server.core.registry.view(place.view).resource;
    let key = Key { resource, namespace: place.namespace.clone(), name };
    let found = {
        let state = server.shared.read();
        if let Some(asked) = version.filter(|asked| *asked > state.revision()) {
            return Err(Refusal::RevisionTooLarge { asked, current: state.revision() });
        }
        state.get(&key).cloned()
    };
    let Some(stored) = found else {
        return Err(Refusal::NotFound { resource: server.core.registry.group_resource(place.view), name: key.name });
    };
    Ok(json(StatusCode::OK, presenter.object(&stored, server.core.sources.now())))
}

pub(super) fn list_or_watch(server: &Server, asked: &Asked, place: &Place) -> Result<Response<ApiBody>, Refusal> {
    if asked.query.flag("watch")? {
        return watch(server, asked, place);
    }
    let presenter = presenter(server, asked, place)?;
    let filter = filter(server, asked, place)?;
    let limit = asked.query.number("limit")?.unwrap_or(0);
    let version = list_version(asked)?;
    let page = {
        let state = server.shared.read();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        list::page(&state, &server.core.registry, place.view, &filter, &version, limit)?
    };
    Ok(json(StatusCode::OK, presenter.list(&page, server.core.sources.now())))
}

fn list_version(asked: &Asked) -> Result<Version, Refusal> {
    let (text, matching) = (asked.query.get("resourceVersion"), asked.query.get("resourceVersionMatch"));
    let token = asked.query.get("continue");
    if !token.is_empty() {
        if !matches!(text, "" | "0") {
            return Err(Refusal::BadRequest(String::from(
                "specifying resource version is not allowed when using continue",
            )));
        }
        return Ok(Version::Continue(String::from(token)));
    }
    let version = asked_version(text)?;
    match (matching, version) {
        ("", None) | ("NotOlderThan", None) if matching.is_empty() || !text.is_empty() => Ok(Version::Latest),
        ("" | "NotOlderThan", Some(version)) => Ok(Version::NotOlderThan(version)),
        ("Exact", Some(version)) => Ok(Version::Exact(version)),
        ("Exact", None) if text == "0" => Err(bad_option(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        ("Exact" | "NotOlderThan", None) => Err(bad_option(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (other, _) => {
            let supported = ["\"Exact\"", "\"NotOlderThan\"", "\"\""].map(String::from);
            let cause = Cause::not_supported("resourceVersionMatch", &Value::from(other), &supported);
            Err(Refusal::invalid_options("ListOptions", cause))
        }
    }
}

fn watch(server: &Server, asked: &Asked, place: &Place) -> Result<Response<ApiBody>, Refusal> {
    let version = asked_version(asked.query.get("resourceVersion"))?;
    let initial = asked.query.flag("sendInitialEvents")?;
    let matching = asked.query.get("resourceVersionMatch");
    if initial && matching != "NotOlderThan" {
        return Err(bad_option(
            "sendInitialEvents",
            "sendInitialEvents requires resourceVersionMatch to be NotOlderThan",
        ));
    }
    if !initial && !matching.is_empty() {
        return Err(bad_option(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    let start = match (initial, version) {
        (true, _) => Start::EverythingThenBookmark,
        (false, None) => Start::Everything,
        (false, Some(version)) => Start::After(version),
    };
    if let Some(asked) = version.filter(|asked| initial && *asked > server.shared.read().revision()) {
        return Err(Refusal::RevisionTooLarge { asked, current: server.shared.read().revision() });
    }
    let timeout = asked.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let request = watch::Request {
        presenter: presenter(server, asked, place)?,
        filter: filter(server, asked, place)?,
        start,
        bookmarks: asked.query.flag("allowWatchBookmarks")?,
        timeout: timeout.unwrap_or(WATCH_TIMEOUT).min(WATCH_TIMEOUT),
    };
    let lines = watch::start(&server.shared, server.core.sources.clock(), request)?;
    Ok(with(StatusCode::OK, "application/json", ApiBody::lines(lines)))
}
