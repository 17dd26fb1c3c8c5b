//! Rules: what one rule allows, and when rules cover other rules.
//!
//! Holds: pure functions over what roles say; the reading of `*`, of subresources and of names is that of Kubernetes.

use serde::Deserialize;

use super::attributes::Attributes;

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(crate) urls: Vec<String>,
}

const ALL: &str = "*";

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|found| found == ALL || found == word)
}

/// Whether a path falls under what a rule names: itself, or all below it when it ends with a star.
fn url_falls_under(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || rule.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

impl Rule {
    /// Whether the rule allows the request.
    pub(crate) fn allows(&self, asked: &Attributes) -> bool {
        if asked.is_path() {
            return has(&self.verbs, &asked.verb) && self.urls.iter().any(|url| url_falls_under(url, &asked.path));
        }
        has(&self.verbs, &asked.verb)
            && has(&self.api_groups, &asked.group)
            && self.is_about(asked)
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }

    fn is_about(&self, asked: &Attributes) -> bool {
        let combined = asked.combined();
        has(&self.resources, &combined)
            || (!asked.subresource.is_empty() && self.resources.contains(&format!("*/{}", asked.subresource)))
    }

    /// The rule cut into the smallest rules that say the same together.
    fn pieces(&self) -> Vec<Rule> {
        let mut pieces = Vec::new();
        let one = |word: &String| vec![word.clone()];
        for verb in &self.verbs {
            for url in &self.urls {
                pieces.push(Rule { verbs: one(verb), urls: one(url), ..Rule::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let whole =
                        Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                    match self.resource_names.as_slice() {
                        [] => pieces.push(whole),
                        names => {
                            pieces.extend(names.iter().map(|name| Rule { resource_names: one(name), ..whole.clone() }))
                        }
                    }
                }
            }
        }
        pieces
    }

    /// Whether everything that a piece allows is allowed by this rule.
    fn covers_piece(&self, piece: &Rule) -> bool {
        let all = |own: &[String], wanted: &[String]| wanted.iter().all(|word| has(own, word));
        let resource = |wanted: &String| {
            let below = wanted.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
            has(&self.resources, wanted) || below.is_some_and(|below| self.resources.contains(&below))
        };
        let names = match (self.resource_names.as_slice(), piece.resource_names.as_slice()) {
            ([], _) => true,
            (_, []) => false,
            (own, wanted) => wanted.iter().all(|name| own.contains(name)),
        };
        all(&self.verbs, &piece.verbs)
            && all(&self.api_groups, &piece.api_groups)
            && piece.resources.iter().all(resource)
            && names
            && piece.urls.iter().all(|url| self.urls.iter().any(|own| url_falls_under(own, url)))
    }
}

/// The pieces of `wanted` that `owned` does not cover.
pub(crate) fn not_covered<'a>(owned: &[&Rule], wanted: impl IntoIterator<Item = &'a Rule>) -> Vec<Rule> {
    let pieces = wanted.into_iter().flat_map(Rule::pieces);
    pieces.filter(|piece| !owned.iter().any(|rule| rule.covers_piece(piece))).collect()
}

impl std::fmt::Display for Rule {
    /// As Kubernetes writes it in a refusal: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.urls),
            ("Verbs", &self.verbs),
        ];
        let parts = named.into_iter().filter(|(_, words)| !words.is_empty());
        let parts: Vec<String> = parts
            .map(|(name, words)| {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("{name}:[{}]", words.join(" "))
            })
            .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use serde_json::{Value, json};

    use crate::http::query::Query;

    fn rule(document: Value) -> Rule {
        serde_json::from_value(document).expect("a rule")
    }

    fn on(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Rule {
        rule(json!({"apiGroups": groups, "resources": resources, "resourceNames": names, "verbs": verbs}))
    }

    fn asked(line: &str) -> Attributes {
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Attributes::read(&method.parse::<Method>().expect("a method"), path, &Query::parse(query))
    }

    fn check(rule: &Rule, allowed: &[&str], denied: &[&str]) {
        for line in allowed {
            assert!(rule.allows(&asked(line)), "{rule} allows {line}");
        }
        for line in denied {
            assert!(!rule.allows(&asked(line)), "{rule} denies {line}");
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        let one = "/apis/g/v1/things/a";
        check(
            &on(&["g"], &["things"], &[], &["get", "list"]),
            &["GET /apis/g/v1/things/a", "GET /apis/g/v2/things", "GET /apis/g/v1/namespaces/n/things"],
            &[
                "GET /apis/h/v1/things/a",
                "GET /apis/g/v1/others",
                "PUT /apis/g/v1/things/a",
                "GET /api/v1/things",
                "GET /apis/g/v1/things/a/status",
                "GET /apis/g/v1/things?watch=1",
            ],
        );
        check(
            &on(&["*"], &["*"], &[], &["*"]),
            &[&format!("PATCH {one}/status"), "GET /api/v1/secrets"],
            &["GET /apis"],
        );
        check(
            &on(&["g"], &["things/status"], &[], &["update"]),
            &[&format!("PUT {one}/status")],
            &[&format!("PUT {one}"), &format!("PUT {one}/scale")],
        );
        check(
            &on(&["g"], &["*/status"], &[], &["update"]),
            &[&format!("PUT {one}/status")],
            &[&format!("PUT {one}"), &format!("PUT {one}/scale")],
        );
        check(&on(&["g"], &["things/*"], &[], &["*"]), &[], &[&format!("PUT {one}/status"), &format!("GET {one}")]);
        check(
            &on(&["g"], &["things"], &["a"], &["*"]),
            &[&format!("GET {one}"), "GET /apis/g/v1/things?fieldSelector=metadata.name%3Da&watch=1"],
            &["GET /apis/g/v1/things/b", "GET /apis/g/v1/things", "POST /apis/g/v1/things", "DELETE /apis/g/v1/things"],
        );
        check(
            &rule(json!({"nonResourceURLs": ["/healthz", "/apis/*"], "verbs": ["get"]})),
            &["GET /healthz", "GET /apis/g"],
            &["GET /apis", "GET /healthz/x", "POST /healthz", "GET /apis/g/v1/things"],
        );
    }

    #[test]
    fn what_is_not_covered_is_named() {
        let owned = on(&["g"], &["things", "*/status"], &[], &["get", "list"]);
        let named = on(&["g"], &["things"], &["a"], &["delete"]);
        let urls = rule(json!({"nonResourceURLs": ["/a/*"], "verbs": ["*"]}));
        let lacks = |wanted: Rule| {
            let found = not_covered(&[&owned, &named, &urls], [&wanted]);
            found.iter().map(Rule::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(lacks(on(&["g"], &["things", "things/status", "others/status"], &["x"], &["get", "list"])), "");
        assert_eq!(lacks(on(&["g"], &["things"], &["a"], &["delete", "get"])), "");
        assert_eq!(
            lacks(on(&["g"], &["things"], &[], &["delete"])),
            "{APIGroups:[\"g\"], Resources:[\"things\"], Verbs:[\"delete\"]}"
        );
        assert_eq!(
            lacks(on(&["g"], &["things"], &["a", "b"], &["delete"])),
            "{APIGroups:[\"g\"], Resources:[\"things\"], ResourceNames:[\"b\"], Verbs:[\"delete\"]}"
        );
        assert_eq!(
            lacks(on(&["g", "*"], &["things"], &[], &["get"])),
            "{APIGroups:[\"*\"], Resources:[\"things\"], Verbs:[\"get\"]}"
        );
        assert_eq!(lacks(on(&["g"], &["*"], &[], &["get"])), "{APIGroups:[\"g\"], Resources:[\"*\"], Verbs:[\"get\"]}");
        assert_eq!(
            lacks(on(&["g"], &["things"], &[], &["*"])),
            "{APIGroups:[\"g\"], Resources:[\"things\"], Verbs:[\"*\"]}"
        );
        assert_eq!(lacks(rule(json!({"nonResourceURLs": ["/a/b", "/a/c/*"], "verbs": ["get"]}))), "");
        assert_eq!(
            lacks(rule(json!({"nonResourceURLs": ["/a"], "verbs": ["get"]}))),
            "{NonResourceURLs:[\"/a\"], Verbs:[\"get\"]}"
        );
    }
}
