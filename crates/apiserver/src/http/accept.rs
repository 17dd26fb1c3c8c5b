//! Media types: what the client takes, and what it sends.
//!
//! Holds: JSON is always spoken; of the other forms only those that the client put before it.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::present::Look;
use crate::refusal::Refusal;
use crate::table::Include;

/// What is accepted as an answer's type.
const OFFERED: &str = "application/json";

/// One media type with its parameters.
struct MediaType<'a> {
    essence: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    fn parse(text: &'a str) -> MediaType<'a> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let parameters = parts.filter_map(|part| part.split_once('=')).map(|(name, value)| (name.trim(), value.trim()));
        MediaType { essence, parameters: parameters.collect() }
    }

    fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
    }

    fn is_json(&self) -> bool {
        matches!(self.essence, "application/json" | "application/*" | "*/*")
    }
}

fn accepted(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|part| String::from(part.trim()))
        .filter(|part| !part.is_empty())
        .collect()
}

/// How objects are to be shown.
pub(crate) fn look(headers: &HeaderMap, include: Include) -> Result<Look, Refusal> {
    let accepted = accepted(headers);
    if accepted.is_empty() {
        return Ok(Look::Whole);
    }
    for entry in &accepted {
        let media = MediaType::parse(entry);
        if !media.is_json() {
            continue;
        }
        let (form, version, group) = (media.parameter("as"), media.parameter("v"), media.parameter("g"));
        match (form, group, version) {
            ("", _, _) => return Ok(Look::Whole),
            ("Table", "meta.k8s.io", "v1") => return Ok(Look::Table { include, beta: false }),
            ("Table", "meta.k8s.io", "v1beta1") => return Ok(Look::Table { include, beta: true }),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => return Ok(Look::Partial),
            (_, _, _) => {}
        }
    }
    Err(Refusal::NotAcceptable(OFFERED))
}

/// Whether discovery is wanted in the aggregated form; then its content type.
pub(crate) fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    for entry in accepted(headers) {
        let media = MediaType::parse(&entry);
        if !media.is_json() {
            continue;
        }
        match (media.parameter("as"), media.parameter("g"), media.parameter("v")) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                return Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
            }
            ("", _, _) => return None,
            (_, _, _) => {}
        }
    }
    None
}

/// The media type of the request's body, without parameters, in lower case.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    MediaType::parse(value).essence.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Result<Look, Refusal>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        assert_eq!(look(&headers, Include::Metadata), expected, "{accept}");
    }

    #[test]
    fn the_first_form_that_is_spoken_is_taken() {
        let table = |beta| Ok(Look::Table { include: Include::Metadata, beta });
        check("application/json", Ok(Look::Whole));
        check("*/*", Ok(Look::Whole));
        check("application/vnd.kubernetes.protobuf, application/json", Ok(Look::Whole));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", table(false));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", table(true));
        check("application/json;as=Odd;v=v1;g=meta.k8s.io,application/json", Ok(Look::Whole));
        check("application/json,application/json;as=Table;v=v1;g=meta.k8s.io", Ok(Look::Whole));
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Ok(Look::Partial));
        check("application/vnd.kubernetes.protobuf", Err(Refusal::NotAcceptable(OFFERED)));
    }
}
