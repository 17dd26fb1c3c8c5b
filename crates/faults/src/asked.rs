//! What kind of request it is, as far as faults care.

use http::{Method, Uri};

/// A request, classified by method, path and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) is_watch: bool,
    pub(crate) is_list: bool,
    pub(crate) is_write: bool,
    /// It asks for whatever version the server has at hand.
    pub(crate) takes_the_past: bool,
}

impl Asked {
    pub(crate) fn of(method: &Method, uri: &Uri) -> Asked {
        let has = |name: &str, values: &[&str]| {
            let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().any(|(found, value)| found == name && values.contains(&value))
        };
        let read = method == Method::GET;
        let is_watch = read && has("watch", &["true", "1"]);
        Asked {
            is_watch,
            is_list: read && !is_watch && names_a_collection(uri.path()),
            is_write: matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE),
            takes_the_past: has("resourceVersion", &["0"]),
        }
    }
}

fn names_a_collection(path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let inside = match segments.as_slice() {
        ["api", _version, inside @ ..] | ["apis", _, _version, inside @ ..] => inside,
        _ => return false,
    };
    matches!(inside, [_plural] | ["namespaces", _, _plural])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let of = |method: Method, uri: &str| Asked::of(&method, &uri.parse().expect("a URI"));
        let list = of(Method::GET, "/apis/example.com/v1/things?limit=500&resourceVersion=0");
        assert!(list.is_list && list.takes_the_past && !list.is_watch && !list.is_write);
        assert!(of(Method::GET, "/api/v1/namespaces/default/secrets").is_list);
        assert!(!of(Method::GET, "/api/v1/namespaces/default").is_list);
        assert!(!of(Method::GET, "/apis/example.com/v1").is_list);
        let watch = of(Method::GET, "/apis/example.com/v1/things?watch=true&resourceVersion=7");
        assert!(watch.is_watch && !watch.is_list && !watch.takes_the_past);
        let write = of(Method::PATCH, "/apis/example.com/v1/things/a");
        assert!(write.is_write && !write.is_list);
    }
}
