//! Every way in which a request can be refused, and the `Status` object that says so.
//!
//! Holds: codes, reasons, messages and details are what client-go and kube-rs look at; no refusal carries a value of a Secret.

use std::fmt;

use serde_json::{Value, json};

/// A resource with its group: `logicalvolumes.topolvm.io`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupResource {
    pub(crate) group: String,
    pub(crate) resource: String,
}

/// A kind with its group: `LogicalVolume.topolvm.io`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupKind {
    pub(crate) group: String,
    pub(crate) kind: String,
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.resource, &self.group)
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.kind, &self.group)
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    if group.is_empty() { f.write_str(name) } else { write!(f, "{name}.{group}") }
}

/// What is wrong with one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CauseReason {
    Required,
    Invalid,
    NotSupported,
    TypeInvalid,
    TooLong,
    TooMany,
    Duplicate,
    Forbidden,
}

impl CauseReason {
    /// The machine-readable word.
    fn word(self) -> &'static str {
        match self {
            CauseReason::Required => "FieldValueRequired",
            CauseReason::Invalid => "FieldValueInvalid",
            CauseReason::NotSupported => "FieldValueNotSupported",
            CauseReason::TypeInvalid => "FieldValueTypeInvalid",
            CauseReason::TooLong => "FieldValueTooLong",
            CauseReason::TooMany => "FieldValueTooMany",
            CauseReason::Duplicate => "FieldValueDuplicate",
            CauseReason::Forbidden => "FieldValueForbidden",
        }
    }
}

/// One field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: CauseReason,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message =
            if detail.is_empty() { String::from("Required value") } else { format!("Required value: {detail}") };
        Cause { reason: CauseReason::Required, field: field.into(), message }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause {
            reason: CauseReason::Invalid,
            field: field.into(),
            message: format!("Invalid value: {}: {detail}", shown(value)),
        }
    }

    pub(crate) fn wrong_type(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Cause { reason: CauseReason::TypeInvalid, ..Cause::invalid(field, value, detail) }
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &Value, supported: &[String]) -> Cause {
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), supported.join(", "));
        Cause { reason: CauseReason::NotSupported, field: field.into(), message }
    }

    pub(crate) fn too_long(field: impl Into<String>, most: u64) -> Cause {
        let message = format!("Too long: may not be more than {most} bytes");
        Cause { reason: CauseReason::TooLong, field: field.into(), message }
    }

    pub(crate) fn too_many(field: impl Into<String>, found: usize, most: u64) -> Cause {
        let message = format!("Too many: {found}: must have at most {most} items");
        Cause { reason: CauseReason::TooMany, field: field.into(), message }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        let message = format!("Duplicate value: {}", shown(value));
        Cause { reason: CauseReason::Duplicate, field: field.into(), message }
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Cause { reason: CauseReason::Forbidden, field: field.into(), message: format!("Forbidden: {detail}") }
    }

    fn document(&self) -> Value {
        json!({"reason": self.reason.word(), "message": self.message, "field": self.field})
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A value as an error shows it: scalars as JSON, larger things by their type, long text cut.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 256;
    if value.is_object() {
        return String::from("\"object\"");
    }
    if value.is_array() {
        return String::from("\"array\"");
    }
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{resource} \"{name}\" not found")]
    NotFound { resource: GroupResource, name: String },
    #[error("the server could not find the requested resource")]
    NoSuchPath,
    #[error("{resource} \"{name}\" already exists")]
    AlreadyExists { resource: GroupResource, name: String },
    #[error("Operation cannot be fulfilled on {resource} \"{name}\": {why}")]
    Conflict { resource: GroupResource, name: String, why: String },
    #[error("{}", conflicts(.causes))]
    ApplyConflict {
        /// The manager and the field of each conflict.
        causes: Vec<(String, String)>,
    },
    /// An applied object that does not fit its schema: on a cluster an error without a reason, and so here.
    #[error("{0}")]
    Unfit(String),
    #[error("{kind} \"{name}\" is invalid: {}", joined(.causes))]
    Invalid { kind: GroupKind, name: String, causes: Vec<Cause> },
    #[error("the server rejected our request due to an error in our request")]
    PatchRejected { why: String },
    #[error("{0}")]
    BadRequest(String),
    #[error("{}forbidden: {why}", subject(.resource, .name))]
    Forbidden { resource: GroupResource, name: String, why: String, terminating: Option<String> },
    #[error("Unauthorized")]
    Unauthorized,
    #[error("Too many requests, please try again later.")]
    TooManyRequests,
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(&'static str),
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    #[error("{0}")]
    Expired(String),
    #[error("Request entity too large: limit is {limit} bytes")]
    TooLarge { limit: usize },
    #[error("Too large resource version: {asked}, current: {current}")]
    RevisionTooLarge { asked: u64, current: u64 },
    #[error("Internal error occurred: {0}")]
    Internal(String),
    #[error("{0}")]
    Unavailable(String),
}

/// What a refusal of a right is about: an object, a resource, or neither.
fn subject(resource: &GroupResource, name: &str) -> String {
    match (resource.resource.as_str(), name) {
        ("", _) => String::new(),
        (_, "") => format!("{resource} is "),
        (_, name) => format!("{resource} \"{name}\" is "),
    }
}

fn joined(causes: &[Cause]) -> String {
    let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
    match texts.as_slice() {
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// Conflicts of an apply in words, by manager.
fn conflicts(causes: &[(String, String)]) -> String {
    if let [(manager, field)] = causes {
        return format!("Apply failed with 1 conflict: conflict with {manager}: {field}");
    }
    let mut lines = Vec::new();
    let mut last = None;
    for (manager, field) in causes {
        if last != Some(manager) {
            lines.push(format!("conflicts with {manager}:"));
            last = Some(manager);
        }
        lines.push(format!("- {field}"));
    }
    format!("Apply failed with {} conflicts: {}", causes.len(), lines.join("\n"))
}

impl Refusal {
    /// The options of a request are wrong.
    pub(crate) fn invalid_options(kind: &str, cause: Cause) -> Refusal {
        let kind = GroupKind { group: String::from("meta.k8s.io"), kind: String::from(kind) };
        Refusal::Invalid { kind, name: String::new(), causes: vec![cause] }
    }

    /// The HTTP status code.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Refusal::BadRequest(_) => 400,
            Refusal::Unauthorized => 401,
            Refusal::Forbidden { .. } => 403,
            Refusal::NotFound { .. } | Refusal::NoSuchPath => 404,
            Refusal::MethodNotAllowed => 405,
            Refusal::NotAcceptable(_) => 406,
            Refusal::AlreadyExists { .. } | Refusal::Conflict { .. } | Refusal::ApplyConflict { .. } => 409,
            Refusal::Expired(_) => 410,
            Refusal::TooManyRequests => 429,
            Refusal::TooLarge { .. } => 413,
            Refusal::UnsupportedMediaType(_) => 415,
            Refusal::Invalid { .. } | Refusal::PatchRejected { .. } => 422,
            Refusal::Internal(_) | Refusal::Unfit(_) => 500,
            Refusal::Unavailable(_) => 503,
            Refusal::RevisionTooLarge { .. } => 504,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) => "BadRequest",
            Refusal::Unauthorized => "Unauthorized",
            Refusal::Forbidden { .. } => "Forbidden",
            Refusal::NotFound { .. } | Refusal::NoSuchPath => "NotFound",
            Refusal::MethodNotAllowed => "MethodNotAllowed",
            Refusal::NotAcceptable(_) => "NotAcceptable",
            Refusal::AlreadyExists { .. } => "AlreadyExists",
            Refusal::Conflict { .. } | Refusal::ApplyConflict { .. } => "Conflict",
            Refusal::Unfit(_) => "",
            Refusal::Expired(_) => "Expired",
            Refusal::TooManyRequests => "TooManyRequests",
            Refusal::TooLarge { .. } => "RequestEntityTooLarge",
            Refusal::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Refusal::Invalid { .. } | Refusal::PatchRejected { .. } => "Invalid",
            Refusal::Internal(_) => "InternalError",
            Refusal::Unavailable(_) => "ServiceUnavailable",
            Refusal::RevisionTooLarge { .. } => "Timeout",
        }
    }

    /// The `Status` object that answers the request.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "details": self.details(),
            "code": self.code(),
        });
        if !self.reason().is_empty() {
            status["reason"] = json!(self.reason());
        }
        status
    }

    fn details(&self) -> Value {
        match self {
            Refusal::NotFound { resource, name }
            | Refusal::AlreadyExists { resource, name }
            | Refusal::Conflict { resource, name, why: _ } => named(&resource.group, &resource.resource, name),
            Refusal::Forbidden { resource, name, why: _, terminating } => {
                let mut details = named(&resource.group, &resource.resource, name);
                if let Some(namespace) = terminating {
                    let message = format!("namespace {namespace} is being terminated");
                    details["causes"] =
                        json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
                }
                details
            }
            Refusal::Invalid { kind, name, causes } => {
                let mut details = named(&kind.group, &kind.kind, name);
                details["causes"] = causes.iter().map(Cause::document).collect();
                details
            }
            Refusal::PatchRejected { why } | Refusal::Internal(why) => {
                json!({"causes": [{"reason": "UnexpectedServerResponse", "message": why}]})
            }
            Refusal::ApplyConflict { causes } => {
                let cause = |(manager, field): &(String, String)| {
                    let message = format!("conflict with {manager}");
                    json!({"reason": "FieldManagerConflict", "message": message, "field": field})
                };
                json!({"causes": causes.iter().map(cause).collect::<Vec<_>>()})
            }
            Refusal::TooManyRequests => json!({"retryAfterSeconds": 1}),
            Refusal::RevisionTooLarge { .. } => json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            }),
            Refusal::NoSuchPath
            | Refusal::BadRequest(_)
            | Refusal::Unfit(_)
            | Refusal::Unauthorized
            | Refusal::MethodNotAllowed
            | Refusal::NotAcceptable(_)
            | Refusal::UnsupportedMediaType(_)
            | Refusal::Expired(_)
            | Refusal::TooLarge { .. }
            | Refusal::Unavailable(_) => json!({}),
        }
    }
}

fn named(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (field, value) in [("name", name), ("kind", kind), ("group", group)] {
        if !value.is_empty() {
            details[field] = json!(value);
        }
    }
    details
}
