//! What a request is, as rules speak of it: a verb on a resource, or a method on a path.
//!
//! Holds: it is read from method, path and query alone, by the shape of the path, so that it is the same whether the kind
//! or the object exists.

use http::Method;

use crate::http::query::{Query, decode};
use crate::selector::FieldSelector;

/// A request, as rules speak of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    /// The verb: `get`, `list`, `watch`, `create`, ... or, of a path, the method in lower case.
    pub verb: String,
    /// The API group; empty is the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The resource; empty when the request is about a path.
    pub resource: String,
    /// The subresource, such as `status`; mostly empty.
    pub subresource: String,
    /// The namespace; empty is the cluster scope or all namespaces.
    pub namespace: String,
    /// The object's name; empty when the request is about many, or names none.
    pub name: String,
    /// The path, when the request is not about a resource; empty otherwise.
    pub path: String,
}

impl Attributes {
    /// Reads a request.
    pub(crate) fn read(method: &Method, path: &str, query: &Query) -> Attributes {
        let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => resource(method, query, "", version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => resource(method, query, group, version, rest),
            _ => Attributes { verb: method.as_str().to_lowercase(), path: String::from(path), ..Attributes::default() },
        }
    }

    /// Whether this is about a path, not about a resource.
    pub(crate) fn is_path(&self) -> bool {
        self.resource.is_empty()
    }

    /// Whether it lasts as long as the client wants.
    pub(crate) fn is_watch(&self) -> bool {
        self.verb == "watch" && !self.is_path()
    }

    /// Whether it only reads.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }

    /// The resource with its subresource, as rules write it.
    pub(crate) fn combined(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The sentence with which a user is refused.
    pub(crate) fn refusal(&self, user: &str) -> String {
        let Attributes { verb, group, namespace, path, .. } = self;
        if self.is_path() {
            return format!("User {user:?} cannot {verb} path {path:?}");
        }
        let place = match namespace.as_str() {
            "" => String::from("at the cluster scope"),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("User {user:?} cannot {verb} resource {:?} in API group {group:?} {place}", self.combined())
    }
}

fn resource(method: &Method, query: &Query, group: &str, version: &str, rest: &[&str]) -> Attributes {
    // A namespace is inside of itself: whoever may get it there may get it.
    let (namespace, rest) = match rest {
        ["namespaces", namespace, inside @ ..] if !matches!(inside, [] | ["status" | "finalize", ..]) => {
            (*namespace, inside)
        }
        ["namespaces", namespace, ..] => (*namespace, rest),
        _ => ("", rest),
    };
    let part = |index: usize| String::from(rest.get(index).copied().unwrap_or_default());
    let mut asked = Attributes {
        verb: String::from(verb(method)),
        group: String::from(group),
        version: String::from(version),
        resource: part(0),
        subresource: part(2),
        namespace: String::from(namespace),
        name: part(1),
        path: String::new(),
    };
    // What cannot be read as false is a wish to watch, and is refused later for being unreadable.
    let watch = query.flag("watch").unwrap_or(true);
    match asked.verb.as_str() {
        "get" if watch && asked.subresource.is_empty() => asked.verb = String::from("watch"),
        "get" if asked.name.is_empty() => asked.verb = String::from("list"),
        "delete" if asked.name.is_empty() => asked.verb = String::from("deletecollection"),
        _ => {}
    }
    if matches!(asked.verb.as_str(), "list" | "watch") && asked.name.is_empty() {
        asked.name = selected_name(query);
    }
    asked
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _other => "",
    }
}

/// The one name that a field selector asks for: who may see an object by name may select it by name.
fn selected_name(query: &Query) -> String {
    let terms = FieldSelector::parse(query.get("fieldSelector")).map(|selector| selector.terms).unwrap_or_default();
    let named = terms.into_iter().find(|term| term.equal && term.field == "metadata.name");
    named.map(|term| term.value).filter(|name| is_segment(name)).unwrap_or_default()
}

/// Whether a name can stand in a path. Control characters cannot: with a NUL it would be lost in the store's file.
pub(crate) fn is_segment(name: &str) -> bool {
    let is_allowed = |c: char| !matches!(c, '/' | '%') && !c.is_control();
    !name.is_empty() && name != "." && name != ".." && name.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, target: &str, expected: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = Attributes::read(&method, path, &Query::parse(query));
        let Attributes { verb, group, version: _, namespace, name, path, .. } = &asked;
        let found = if asked.is_path() {
            format!("{verb} {path}")
        } else {
            format!("{verb} {group}|{}|{namespace}|{name}", asked.combined())
        };
        assert_eq!(found, expected, "{method} {target}");
    }

    #[test]
    fn verbs_are_derived_as_kubernetes_derives_them() {
        check(Method::GET, "/api", "get /api");
        check(Method::GET, "/apis/g/v1", "get /apis/g/v1");
        check(Method::POST, "/healthz", "post /healthz");
        check(Method::GET, "/api/v1/secrets", "list |secrets||");
        check(Method::GET, "/api/v1/namespaces/a/secrets/b", "get |secrets|a|b");
        check(Method::HEAD, "/api/v1/namespaces/a/secrets/b", "get |secrets|a|b");
        check(Method::GET, "/api/v1/namespaces/a", "get |namespaces|a|a");
        check(Method::PUT, "/api/v1/namespaces/a/status", "update |namespaces/status|a|a");
        check(Method::GET, "/apis/g/v1/things?watch=true", "watch g|things||");
        check(Method::GET, "/apis/g/v1/things?watch=0", "list g|things||");
        check(Method::GET, "/apis/g/v1/things?watch=odd", "watch g|things||");
        check(Method::GET, "/apis/g/v1/things/a?watch=1", "watch g|things||a");
        check(Method::GET, "/apis/g/v1/things?fieldSelector=metadata.name%3Da", "list g|things||a");
        check(Method::GET, "/apis/g/v1/things?watch=1&fieldSelector=metadata.name=a,x=y", "watch g|things||a");
        check(Method::GET, "/apis/g/v1/things?fieldSelector=metadata.name!%3Da", "list g|things||");
        check(Method::GET, "/apis/g/v1/things?fieldSelector=metadata.name%3D..", "list g|things||");
        check(Method::DELETE, "/apis/g/v1/things", "deletecollection g|things||");
        check(Method::DELETE, "/apis/g/v1/things?fieldSelector=metadata.name%3Da", "deletecollection g|things||");
        check(Method::DELETE, "/apis/g/v1/things/a", "delete g|things||a");
        check(Method::PATCH, "/apis/g/v1/things/a/status", "patch g|things/status||a");
        check(Method::POST, "/apis/g/v1/namespaces/n/things", "create g|things|n|");
        check(Method::POST, "/api/v1/namespaces/n/serviceaccounts/s/token", "create |serviceaccounts/token|n|s");
        check(Method::OPTIONS, "/apis/g/v1/things", " g|things||");
    }

    #[test]
    fn refusals_are_said_as_kubernetes_says_them() {
        let asked = |target: &str| Attributes::read(&Method::PUT, target, &Query::default());
        assert_eq!(
            asked("/apis/g/v1/namespaces/n/things/a/status").refusal("u"),
            "User \"u\" cannot update resource \"things/status\" in API group \"g\" in the namespace \"n\""
        );
        assert_eq!(
            asked("/api/v1/nodes/a").refusal("u"),
            "User \"u\" cannot update resource \"nodes\" in API group \"\" at the cluster scope"
        );
        assert_eq!(asked("/metrics").refusal("u"), "User \"u\" cannot put path \"/metrics\"");
    }
}
