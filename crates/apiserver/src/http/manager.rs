//! Who writes: the manager to whom `managedFields` puts a write down, and the options of server-side apply.
//!
//! Holds: a name that is taken from the client's program never refuses a write; one that was given has to be printable.

use http::HeaderMap;
use http::header::USER_AGENT;

use super::query::Query;
use crate::refusal::{Cause, GroupKind, Refusal};

/// The media type of server-side apply.
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// Longest name of a manager.
const LONGEST: u64 = 128;

/// The kinds of options, as refusals name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Update,
    Patch,
    Apply,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Create => "CreateOptions",
            Kind::Update => "UpdateOptions",
            Kind::Patch | Kind::Apply => "PatchOptions",
        }
    }
}

/// The manager that a request names, or the program that sent it.
pub(super) fn manager(query: &Query, headers: &HeaderMap, kind: Kind) -> Result<String, Refusal> {
    let named = query.get("fieldManager");
    let mut causes = Vec::new();
    match kind {
        Kind::Apply if named.is_empty() => causes.push(Cause::required("fieldManager", "is required for apply patch")),
        Kind::Patch if query.has("force") => {
            causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
        }
        Kind::Create | Kind::Update | Kind::Patch | Kind::Apply => {}
    }
    if named.len() as u64 > LONGEST {
        causes.push(Cause::too_long("fieldManager", LONGEST));
    }
    if let Some((at, wrong)) = named.char_indices().find(|(_, letter)| !is_printable(*letter)) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(wrong));
        causes.push(Cause::invalid("fieldManager", &named.into(), &detail));
    }
    if !causes.is_empty() {
        let kind = GroupKind { group: String::from("meta.k8s.io"), kind: String::from(kind.word()) };
        return Err(Refusal::Invalid { kind, name: String::new(), causes });
    }
    Ok(if named.is_empty() { program(headers) } else { String::from(named) })
}

/// The first part of what a program calls itself.
fn program(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    let mut name = String::new();
    for letter in agent.split('/').next().unwrap_or_default().chars().filter(|letter| is_printable(*letter)) {
        if (name.len() + letter.len_utf8()) as u64 > LONGEST {
            break;
        }
        name.push(letter);
    }
    name
}

fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace() || letter == '\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_named_or_is_the_program() {
        let check = |query: &str, agent: &str, kind: Kind, expected: Result<&str, &str>| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().expect("a header"));
            let found = manager(&Query::parse(query), &headers, kind).map_err(|refusal| refusal.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{query} {agent}");
        };
        let long = "x".repeat(200);
        check("fieldManager=me", "kubectl/v1", Kind::Update, Ok("me"));
        check("", "kubectl/v1 (linux)", Kind::Update, Ok("kubectl"));
        check("", "", Kind::Update, Ok(""));
        check("", &long, Kind::Create, Ok(&long[..128]));
        check("force=true&fieldManager=a", "x", Kind::Apply, Ok("a"));
        let invalid = "PatchOptions.meta.k8s.io \"\" is invalid: ";
        check(
            "",
            "x",
            Kind::Apply,
            Err(&format!("{invalid}fieldManager: Required value: is required for apply patch")),
        );
        check(
            "force=true",
            "x",
            Kind::Patch,
            Err(&format!("{invalid}force: Forbidden: may not be specified for non-apply patch")),
        );
        check(
            &format!("fieldManager={long}"),
            "x",
            Kind::Patch,
            Err(&format!("{invalid}fieldManager: Too long: may not be more than 128 bytes")),
        );
        check(
            "fieldManager=a%0ab",
            "x",
            Kind::Patch,
            Err(&format!("{invalid}fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)")),
        );
    }
}
