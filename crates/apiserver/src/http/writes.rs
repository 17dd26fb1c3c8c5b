//! Writing: from a request to the work that the writer does, and back.
//!
//! Holds: whatever can be refused without looking at what is stored is refused before the writer hears of it.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{ApiBody, built_in_object, object};
use super::manager::{APPLY, Kind, manager};
use super::route::Place;
use super::{Asked, accept, json as json_response, reads, warn};
use crate::access::escalation::{self, Asking};
use crate::list::Page;
use crate::patch::Patch;
use crate::present::Presenter;
use crate::refusal::{Cause, Refusal};
use crate::registry::Nature;
use crate::server::Server;
use crate::store::Key;
use crate::store::writer::Work;
use crate::verbs;
use crate::verbs::delete::{DeleteOptions, Propagation};
use crate::verbs::update::{Change, Part};
use crate::verbs::{Answer, FieldValidation, Outcome, Target, WriteOptions};

fn options(asked: &Asked, manager: String) -> Result<WriteOptions, Refusal> {
    let dry_run = match asked.query.get("dryRun") {
        "" => false,
        "All" => true,
        other => return Err(unsupported(asked, "dryRun", other, &["All"])),
    };
    let field_validation = match asked.query.get("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => return Err(unsupported(asked, "fieldValidation", other, &["", "Ignore", "Strict", "Warn"])),
    };
    Ok(WriteOptions { dry_run, field_validation, manager })
}

/// An option has a value that does not exist.
fn unsupported(asked: &Asked, option: &str, found: &str, supported: &[&str]) -> Refusal {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    Refusal::invalid_options(options_kind(asked), Cause::not_supported(option, &Value::from(found), &supported))
}

/// What Kubernetes calls the options of this request.
fn options_kind(asked: &Asked) -> &'static str {
    match asked.method {
        Method::POST => "CreateOptions",
        Method::PUT => "UpdateOptions",
        Method::PATCH => "PatchOptions",
        _ => "DeleteOptions",
    }
}

fn target(place: &Place) -> Target {
    Target { view: place.view, namespace: place.namespace.clone(), name: place.name.clone().unwrap_or_default() }
}

fn part(place: &Place) -> Part {
    if place.status { Part::Status } else { Part::Main }
}

fn read_object(server: &Server, asked: &Asked, place: &Place) -> Result<Value, Refusal> {
    let content_type = accept::content_type(&asked.headers);
    match server.core.registry.resource_of(place.view).nature {
        Nature::Custom => object(&content_type, &asked.body),
        Nature::Namespace | Nature::Secret | Nature::Event | Nature::Lease | Nature::Access(_) | Nature::Cluster(_) => {
            built_in_object(&content_type, &asked.body)
        }
    }
}

pub(super) async fn create(server: &Server, asked: Asked, place: Place) -> Result<Response<ApiBody>, Refusal> {
    if place.namespace.is_empty() && server.core.registry.resource_of(place.view).namespaced {
        return Err(Refusal::MethodNotAllowed);
    }
    let options = options(&asked, manager(&asked.query, &asked.headers, Kind::Create)?)?;
    let dry_run = options.dry_run;
    let body = read_object(server, &asked, &place)?;
    let (core, target) = (Arc::clone(&server.core), target(&place));
    let work: Work = Box::new(move |tx| verbs::create::create(&core, tx, target, options, body));
    submit(server, &asked, &place, dry_run, work).await
}

pub(super) async fn replace(server: &Server, asked: Asked, place: Place) -> Result<Response<ApiBody>, Refusal> {
    let body = read_object(server, &asked, &place)?;
    let options = options(&asked, manager(&asked.query, &asked.headers, Kind::Update)?)?;
    change(server, asked, place, options, Change::Replace(body)).await
}

pub(super) async fn patch(server: &Server, asked: Asked, place: Place) -> Result<Response<ApiBody>, Refusal> {
    let content_type = accept::content_type(&asked.headers);
    if content_type == APPLY {
        return apply(server, asked, place).await;
    }
    let nature = server.core.registry.resource_of(place.view).nature;
    let patch = Patch::parse(&content_type, nature, &asked.body)?;
    let options = options(&asked, manager(&asked.query, &asked.headers, Kind::Patch)?)?;
    change(server, asked, place, options, Change::Patch(patch)).await
}

/// Server-side apply. JSON is YAML too.
async fn apply(server: &Server, asked: Asked, place: Place) -> Result<Response<ApiBody>, Refusal> {
    let options = options(&asked, manager(&asked.query, &asked.headers, Kind::Apply)?)?;
    let (dry_run, force) = (options.dry_run, asked.query.flag("force")?);
    let body: Value = serde_yaml_ng::from_slice(&asked.body)
        .map_err(|error| Refusal::BadRequest(format!("error decoding YAML: {error}")))?;
    if !body.is_object() {
        return Err(Refusal::BadRequest(String::from("error decoding YAML: an object has to be applied")));
    }
    let (core, target, part) = (Arc::clone(&server.core), target(&place), part(&place));
    let work: Work = Box::new(move |tx| verbs::apply::apply(&core, tx, target, options, part, &body, force));
    submit(server, &asked, &place, dry_run, work).await
}

async fn change(
    server: &Server,
    asked: Asked,
    place: Place,
    options: WriteOptions,
    change: Change,
) -> Result<Response<ApiBody>, Refusal> {
    let dry_run = options.dry_run;
    let (core, target, part) = (Arc::clone(&server.core), target(&place), part(&place));
    let work: Work = Box::new(move |tx| verbs::update::update(&core, tx, target, options, part, change));
    submit(server, &asked, &place, dry_run, work).await
}

pub(super) async fn delete(server: &Server, asked: Asked, place: Place) -> Result<Response<ApiBody>, Refusal> {
    let options = delete_options(&asked)?;
    let (core, target, dry_run) = (Arc::clone(&server.core), target(&place), options.write.dry_run);
    let work: Work = Box::new(move |tx| verbs::delete::delete(&core, tx, target, &options));
    submit(server, &asked, &place, dry_run, work).await
}

pub(super) async fn delete_all(server: &Server, asked: Asked, place: Place) -> Result<Response<ApiBody>, Refusal> {
    if place.namespace.is_empty() && server.core.registry.resource_of(place.view).namespaced {
        return Err(Refusal::MethodNotAllowed);
    }
    let options = delete_options(&asked)?;
    let filter = reads::filter(server, &asked, &place)?;
    let (core, target, dry_run) = (Arc::clone(&server.core), target(&place), options.write.dry_run);
    let work: Work = Box::new(move |tx| {
        verbs::delete::delete_all(&core, tx, target, &options, |key, stored| filter.accepts_key(key, stored))
    });
    submit(server, &asked, &place, dry_run, work).await
}

/// Options of a deletion, from its body and its query; the body counts where both speak.
fn delete_options(asked: &Asked) -> Result<DeleteOptions, Refusal> {
    let mut write = options(asked, String::new())?;
    let body = match asked.body.is_empty() {
        true => json!({}),
        false => object(&accept::content_type(&asked.headers), &asked.body)?,
    };
    if !body.is_object() {
        return Err(Refusal::BadRequest(String::from("the body of a DELETE has to be DeleteOptions")));
    }
    if !matches!(body["kind"].as_str(), None | Some("DeleteOptions")) {
        let found = &body["kind"];
        return Err(Refusal::BadRequest(format!("the body of a DELETE has to be DeleteOptions, found kind {found}")));
    }
    // A condition that cannot be read must not be taken for none.
    let preconditions = &body["preconditions"];
    let readable = [&body["propagationPolicy"], &preconditions["uid"], &preconditions["resourceVersion"]];
    let readable = readable.into_iter().all(|value| value.is_null() || value.is_string())
        && (preconditions.is_null() || preconditions.is_object())
        && (body["dryRun"].is_null() || body["dryRun"].is_array())
        && (body["gracePeriodSeconds"].is_null() || body["gracePeriodSeconds"].is_i64())
        && (body["orphanDependents"].is_null() || body["orphanDependents"].is_boolean());
    if !readable {
        return Err(Refusal::BadRequest(String::from("the body of a DELETE has a field of the wrong type")));
    }
    match body["dryRun"].as_array().map(Vec::as_slice) {
        None | Some([]) => {}
        Some([only]) if only == "All" => write.dry_run = true,
        Some([first, ..]) => {
            return Err(unsupported(asked, "dryRun", first.as_str().unwrap_or_default(), &["All"]));
        }
    }
    let text = |value: &Value| value.as_str().map(String::from);
    let policy = body["propagationPolicy"].as_str().unwrap_or_else(|| asked.query.get("propagationPolicy"));
    let orphan = body["orphanDependents"].as_bool().unwrap_or(asked.query.flag("orphanDependents")?);
    let orphan_named = body["orphanDependents"].is_boolean() || !asked.query.get("orphanDependents").is_empty();
    if orphan_named && !policy.is_empty() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        let cause = Cause::invalid("propagationPolicy", &Value::from(policy), detail);
        return Err(Refusal::invalid_options("DeleteOptions", cause));
    }
    let propagation = match policy {
        "" if orphan => Propagation::Orphan,
        "" | "Background" => Propagation::Background,
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        other => {
            return Err(unsupported(asked, "propagationPolicy", other, &["Background", "Foreground", "Orphan"]));
        }
    };
    let asked_grace = asked.query.number("gracePeriodSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
    let grace = body["gracePeriodSeconds"].as_i64().or(asked_grace);
    let (uid, resource_version) = (text(&preconditions["uid"]), text(&preconditions["resourceVersion"]));
    Ok(DeleteOptions { write, propagation, uid, resource_version, grace })
}

async fn submit(
    server: &Server,
    asked: &Asked,
    place: &Place,
    dry_run: bool,
    work: Work,
) -> Result<Response<ApiBody>, Refusal> {
    let presenter = reads::presenter(server, asked, place)?;
    let resource = server.core.registry.view(place.view).resource;
    let name = place.name.clone().unwrap_or_default();
    let asking = Asking {
        caller: asked.caller.clone(),
        asked: asked.attributes.clone(),
        key: Key { resource, namespace: place.namespace.clone(), name },
    };
    let work = escalation::guarded(Arc::clone(&server.core), asking, work);
    let outcome = server.writer.submit(&server.shared, work, dry_run).await?;
    Ok(respond(server, &presenter, outcome))
}

fn respond(server: &Server, presenter: &Presenter, outcome: Outcome) -> Response<ApiBody> {
    let now = server.core.sources.now();
    let bytes = match outcome.answer {
        Answer::Object(stored) => presenter.object(&stored, now),
        Answer::Imagined(object) => presenter.imagined(&object, now),
        Answer::Status(document) => document.to_string().into_bytes(),
        Answer::Objects(items) => {
            let revision = server.shared.read().revision();
            presenter.list(&Page { revision, items, more: None, remaining: None }, now)
        }
    };
    let code = StatusCode::from_u16(outcome.code).unwrap_or(StatusCode::OK);
    let mut response = json_response(code, bytes);
    warn(&mut response, &outcome.warnings);
    response
}
