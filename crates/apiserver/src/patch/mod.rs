//! Patches: JSON merge patch, JSON patch, and strategic merge patch for built-in kinds.
//!
//! Holds: a patch is applied whole or not at all; what cannot be applied exactly is refused, never approximated.
//! Server-side apply is no patch in this sense: see [`crate::managed`].

mod json;
mod merge;
mod strategic;

use serde_json::Value;

#[cfg(any(test, lvault_fuzzing))]
pub(crate) use json::MOST_COPIED;

use crate::refusal::Refusal;
use crate::registry::Nature;

/// A parsed patch.
#[derive(Debug, Clone)]
pub(crate) enum Patch {
    Merge(Value),
    Strategic(Value),
    Json(Vec<json::Operation>),
}

/// What a custom resource takes.
const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
/// What a built-in kind takes.
const ACCEPTED_BUILTIN: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

impl Patch {
    /// Parses a patch of that media type for an object of that nature.
    pub(crate) fn parse(media_type: &str, nature: Nature, body: &[u8]) -> Result<Patch, Refusal> {
        let strategic = nature.takes_strategic_merge();
        match media_type {
            "application/merge-patch+json" => Ok(Patch::Merge(object(body)?)),
            "application/json-patch+json" => Ok(Patch::Json(json::parse(body)?)),
            "application/strategic-merge-patch+json" if strategic => Ok(Patch::Strategic(object(body)?)),
            _other if strategic => Err(Refusal::UnsupportedMediaType(ACCEPTED_BUILTIN)),
            _other => Err(Refusal::UnsupportedMediaType(ACCEPTED)),
        }
    }

    /// The document after the patch.
    pub(crate) fn apply(&self, document: &Value) -> Result<Value, Refusal> {
        match self {
            Patch::Merge(patch) => {
                let mut result = document.clone();
                merge::apply(&mut result, patch);
                Ok(result)
            }
            Patch::Strategic(patch) => strategic::apply(document, patch),
            Patch::Json(operations) => json::apply(document, operations),
        }
    }
}

fn object(body: &[u8]) -> Result<Value, Refusal> {
    let parsed: Result<Value, _> = serde_json::from_slice(body);
    let value = parsed.map_err(|error| Refusal::BadRequest(format!("error decoding patch: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Refusal::BadRequest(String::from("a merge patch must be an object")))
    }
}
