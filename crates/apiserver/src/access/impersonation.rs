//! Impersonation: acting as another user, for those who may (`kubectl --as`).
//!
//! Holds: each thing that is taken on (user, uid, group, extra) is asked for by itself; nothing of one's own remains.

use std::sync::Arc;

use http::HeaderMap;

use super::admission::Caller;
use super::attributes::Attributes;
use super::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::http::query::decode;
use crate::refusal::Refusal;
use crate::server::Server;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user on whose behalf a request is done.
pub(crate) fn effective(server: &Server, user: &Arc<User>, headers: &HeaderMap) -> Result<Arc<User>, Refusal> {
    let wanted = wanted(headers)?;
    let Some(wanted) = wanted else {
        return Ok(Arc::clone(user));
    };
    let caller = Caller::new(server, Arc::clone(user));
    for asked in needed(&wanted) {
        caller.require(&asked)?;
    }
    Ok(Arc::new(completed(wanted)))
}

fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// The user that the headers describe, as they describe it.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Refusal> {
    let first = |name: &str| texts(headers, name).into_iter().next().unwrap_or_default();
    let mut user = User {
        name: first(USER),
        uid: first(UID),
        groups: texts(headers, GROUP),
        extra: std::collections::BTreeMap::new(),
    };
    for name in headers.keys().map(http::HeaderName::as_str) {
        if let Some(key) = name.strip_prefix(EXTRA) {
            user.extra.insert(decode(key), texts(headers, name));
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty() {
        return Ok(None);
    }
    Err(Refusal::Internal(String::from("requested groups, a uid or extra values without impersonating a user")))
}

/// What one has to be allowed to do in order to become that user.
fn needed(user: &User) -> Vec<Attributes> {
    let asked = |group: &str, resource: &str, subresource: &str, name: &str| Attributes {
        verb: String::from("impersonate"),
        group: String::from(group),
        version: String::from("v1"),
        resource: String::from(resource),
        subresource: String::from(subresource),
        name: String::from(name),
        ..Attributes::default()
    };
    let mut needed = Vec::new();
    match user.as_service_account() {
        Some((namespace, name)) => {
            needed.push(Attributes { namespace: String::from(namespace), ..asked("", "serviceaccounts", "", name) });
        }
        None => needed.push(asked("", "users", "", &user.name)),
    }
    needed.extend(user.groups.iter().map(|group| asked("", "groups", "", group)));
    if !user.uid.is_empty() {
        needed.push(asked(AUTHENTICATION, "uids", "", &user.uid));
    }
    for (key, values) in &user.extra {
        needed.extend(values.iter().map(|value| asked(AUTHENTICATION, "userextras", key, value)));
    }
    needed
}

/// The user with the groups that come by themselves.
fn completed(mut user: User) -> User {
    if user.groups.is_empty()
        && let Some((namespace, name)) = user.as_service_account()
    {
        user.groups = User::service_account(namespace, name).groups;
    }
    let has = |user: &User, group: &str| user.groups.iter().any(|found| found == group);
    if user.name == ANONYMOUS {
        if !has(&user, UNAUTHENTICATED) {
            user.groups.push(String::from(UNAUTHENTICATED));
        }
    } else if !has(&user, AUTHENTICATED) && !has(&user, UNAUTHENTICATED) {
        user.groups.push(String::from(AUTHENTICATED));
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn each_part_of_the_other_user_is_asked_for() {
        let user = wanted(&headers(&[
            ("impersonate-user", "u"),
            ("impersonate-group", "g"),
            ("impersonate-group", "h"),
            ("impersonate-uid", "1"),
            ("impersonate-extra-a%2fb", "v"),
        ]));
        let user = user.expect("readable").expect("somebody");
        let needed: Vec<String> = needed(&user)
            .into_iter()
            .map(|asked| format!("{} {}/{} {}", asked.group, asked.resource, asked.subresource, asked.name))
            .collect();
        let expected = [
            " users/ u",
            " groups/ g",
            " groups/ h",
            "authentication.k8s.io uids/ 1",
            "authentication.k8s.io userextras/a/b v",
        ];
        assert_eq!(needed, expected);
        assert_eq!(completed(user).groups, ["g", "h", "system:authenticated"]);
        assert_eq!(wanted(&headers(&[])), Ok(None));
        assert!(wanted(&headers(&[("impersonate-group", "g")])).is_err());
    }

    #[test]
    fn groups_come_by_themselves() {
        let groups = |name: &str| completed(User { groups: Vec::new(), ..User::named(name, &[]) }).groups;
        assert_eq!(groups("u"), ["system:authenticated"]);
        assert_eq!(groups("system:anonymous"), ["system:unauthenticated"]);
        assert_eq!(
            groups("system:serviceaccount:a:b"),
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
        let account = needed(&User::service_account("a", "b"));
        assert_eq!((account[0].resource.as_str(), account[0].namespace.as_str()), ("serviceaccounts", "a"));
    }
}
