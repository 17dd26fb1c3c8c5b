//! Paths: what a request is about.
//!
//! Holds: routing knows the registry and nothing of what is stored.

use crate::http::query::decode;
use crate::refusal::Refusal;
use crate::registry::{Registry, ViewId};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Version,
    CoreVersions,
    Groups,
    Group(String),
    Resources {
        group: String,
        version: String,
    },
    OpenApiIndex,
    OpenApi {
        group: String,
        version: String,
    },
    /// Objects of one view.
    Objects(Place),
}

/// Objects of one view: all of a resource, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) view: ViewId,
    /// Empty: cluster scope, or all namespaces.
    pub(crate) namespace: String,
    /// None: all of them.
    pub(crate) name: Option<String>,
    pub(crate) status: bool,
}

/// Reads a path.
pub(crate) fn route(registry: &Registry, path: &str) -> Result<Route, Refusal> {
    let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(Route::Health),
        ["version"] => Ok(Route::Version),
        ["api"] => Ok(Route::CoreVersions),
        ["apis"] => Ok(Route::Groups),
        ["openapi", "v3"] => Ok(Route::OpenApiIndex),
        ["openapi", "v3", "api", version] => {
            Ok(Route::OpenApi { group: String::new(), version: String::from(*version) })
        }
        ["openapi", "v3", "apis", group, version] => {
            Ok(Route::OpenApi { group: String::from(*group), version: String::from(*version) })
        }
        ["api", version] => Ok(Route::Resources { group: String::new(), version: String::from(*version) }),
        ["apis", group] => Ok(Route::Group(String::from(*group))),
        ["apis", group, version] => {
            Ok(Route::Resources { group: String::from(*group), version: String::from(*version) })
        }
        ["api", version, rest @ ..] => objects(registry, "", version, rest).map(Route::Objects),
        ["apis", group, version, rest @ ..] => objects(registry, group, version, rest).map(Route::Objects),
        _ => Err(Refusal::NoSuchPath),
    }
}

fn objects(registry: &Registry, group: &str, version: &str, rest: &[&str]) -> Result<Place, Refusal> {
    // `namespaces/x` is a namespace, `namespaces/x/status` its status, and `namespaces/x/secrets` what is inside.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, inside @ ..] if !matches!(inside, [] | ["status"] | ["finalize"]) => {
            (*namespace, inside)
        }
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(*name), None),
        [plural, name, subresource] => (plural, Some(*name), Some(*subresource)),
        _ => return Err(Refusal::NoSuchPath),
    };
    let view = registry.find(group, version, plural).ok_or(Refusal::NoSuchPath)?;
    let namespaced = registry.resource_of(view).namespaced;
    // One object of a namespaced resource has to be named with its namespace, one of cluster scope without.
    if namespaced == namespace.is_empty() && (name.is_some() || !namespaced) {
        return Err(Refusal::NoSuchPath);
    }
    let status = match subresource {
        None => false,
        Some("status") if registry.view(view).status => true,
        Some(_) => return Err(Refusal::NoSuchPath),
    };
    Ok(Place { view, namespace: String::from(namespace), name: name.map(String::from), status })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, namespace: &str, name: Option<&str>, status: bool) {
        let registry = Registry::build(&[]).expect("builds");
        match route(&registry, path) {
            Ok(Route::Objects(place)) => {
                assert_eq!(
                    (place.namespace.as_str(), place.name.as_deref(), place.status),
                    (namespace, name, status),
                    "{path}"
                );
            }
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_are_read() {
        check("/api/v1/namespaces", "", None, false);
        check("/api/v1/namespaces/a", "", Some("a"), false);
        check("/api/v1/namespaces/a/status", "", Some("a"), true);
        check("/api/v1/namespaces/a/secrets", "a", None, false);
        check("/api/v1/namespaces/a/secrets/b", "a", Some("b"), false);
        check("/api/v1/secrets", "", None, false);
        check("//apis/coordination.k8s.io/v1/namespaces/a/leases/b%2Fc", "a", Some("b/c"), false);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let registry = Registry::build(&[]).expect("builds");
        let paths = [
            "/",
            "/odd",
            "/api/v2/secrets",
            "/apis/x/v1/things",
            "/api/v1/secrets/b",
            "/api/v1/namespaces/a/namespaces",
            "/api/v1/namespaces/a/secrets/b/status",
            "/api/v1/namespaces/a/secrets/b/c/d",
        ];
        for path in paths {
            assert_eq!(route(&registry, path), Err(Refusal::NoSuchPath), "{path}");
        }
    }
}
