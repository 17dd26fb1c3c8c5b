//! Reviews: questions about users and rights. They look like kinds, are only ever created, and nothing is stored.
//!
//! Holds: a review is answered from the same policy that requests are judged by; asking one's own rights tells the observer
//! nothing, for nothing is done.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::attributes::Attributes;
use super::observer::Grant;
use super::rule::Rule;
use super::token::ISSUER;
use super::token_request;
use super::user::User;
use crate::http::body::{self, ApiBody};
use crate::http::{Asked, accept, json as json_response};
use crate::refusal::{Cause, GroupKind, Refusal};
use crate::server::Server;
use crate::sources::seconds;
use crate::table::Include;

/// A kind of review.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

const fn review(group: &'static str, resource: &'static str, kind: &'static str, namespaced: bool) -> Review {
    Review { group, resource, kind, namespaced }
}

/// All of them; each in version v1.
pub(crate) const REVIEWS: [Review; 6] = [
    review(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview", false),
    review(AUTHENTICATION, "tokenreviews", "TokenReview", false),
    review(AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    review(AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    review(AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    review(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", false),
];

/// Answers a review or a request for a token; none when the request is about something else.
pub(crate) fn serve(server: &Server, asked: &Asked) -> Option<Result<Response<ApiBody>, Refusal>> {
    let about = &asked.attributes;
    if about.version != "v1" {
        return None;
    }
    let is_token = (about.group.as_str(), about.combined().as_str()) == ("", "serviceaccounts/token")
        && asked.path.trim_end_matches('/').ends_with("/token");
    let review = REVIEWS.iter().find(|review| {
        review.group == about.group && review.resource == about.resource && about.subresource.is_empty()
    });
    match review {
        Some(review) => Some(answer(server, asked, review)),
        None if is_token => Some(token(server, asked)),
        None => None,
    }
}

fn read(asked: &Asked, kind: &str) -> Result<Value, Refusal> {
    if asked.method != Method::POST {
        return Err(Refusal::MethodNotAllowed);
    }
    accept::look(&asked.headers, Include::None)?;
    let object = body::built_in_object(&accept::content_type(&asked.headers), &asked.body)?;
    let group = if kind == "TokenRequest" { AUTHENTICATION } else { asked.attributes.group.as_str() };
    let said = |field: &str| object[field].as_str().unwrap_or_default();
    let fits = object.is_object()
        && (said("kind").is_empty() || said("kind") == kind)
        && (said("apiVersion").is_empty() || said("apiVersion") == format!("{group}/v1"));
    if fits {
        Ok(object)
    } else {
        Err(Refusal::BadRequest(format!("the object provided is unrecognized (must be of type {kind})")))
    }
}

fn created(document: &Value) -> Response<ApiBody> {
    json_response(StatusCode::CREATED, document.to_string().into_bytes())
}

fn token(server: &Server, asked: &Asked) -> Result<Response<ApiBody>, Refusal> {
    let request = read(asked, "TokenRequest")?;
    let Attributes { namespace, name, .. } = &asked.attributes;
    token_request::refuse_other_name(&request, namespace, name)?;
    token_request::answer(server, &asked.caller, namespace, name, &request).map(|document| created(&document))
}

fn answer(server: &Server, asked: &Asked, review: &Review) -> Result<Response<ApiBody>, Refusal> {
    let Attributes { namespace, name, .. } = &asked.attributes;
    if review.namespaced == namespace.is_empty() {
        return Err(Refusal::NoSuchPath);
    }
    if !name.is_empty() {
        return Err(if asked.method == Method::POST { Refusal::MethodNotAllowed } else { Refusal::NoSuchPath });
    }
    let mut object = read(asked, review.kind)?;
    let user = &asked.caller.user;
    let status = match review.kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(user)}),
        "TokenReview" => token_status(server, &object["spec"]),
        "SelfSubjectAccessReview" => access_status(server, user, &read_question(review, &object["spec"])?),
        "SelfSubjectRulesReview" => rules_status(server, user, &object["spec"])?,
        _of_another => {
            let question = read_question(review, &object["spec"])?;
            refuse_elsewhere(review, namespace, &question)?;
            access_status(server, &read_user(review, &object["spec"])?, &question)
        }
    };
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["creationTimestamp"] = json!(seconds(server.core.sources.now()));
    object["kind"] = json!(review.kind);
    object["apiVersion"] = json!(format!("{}/v1", review.group));
    object["status"] = status;
    Ok(created(&object))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}

fn token_status(server: &Server, spec: &Value) -> Value {
    let audiences = texts(&spec["audiences"]);
    let wanted: Vec<&str> =
        if audiences.is_empty() { vec![ISSUER] } else { audiences.iter().map(String::as_str).collect() };
    match server.user_of_token(spec["token"].as_str().unwrap_or_default(), &wanted) {
        None => json!({"user": {}, "error": "the token is not, or no longer, good"}),
        Some((user, claims)) => {
            let met: Vec<&String> = claims.aud.iter().filter(|audience| wanted.contains(&audience.as_str())).collect();
            json!({"authenticated": true, "user": user_info(&user), "audiences": met})
        }
    }
}

fn invalid(review: &Review, cause: Cause) -> Refusal {
    let kind = GroupKind { group: String::from(review.group), kind: String::from(review.kind) };
    Refusal::Invalid { kind, name: String::new(), causes: vec![cause] }
}

/// What a review asks about.
fn read_question(review: &Review, spec: &Value) -> Result<Attributes, Refusal> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |of: &Value, field: &str| String::from(of[field].as_str().unwrap_or_default());
    match (resource.is_object(), path.is_object()) {
        (true, false) => Ok(Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: String::new(),
        }),
        (false, true) => Ok(Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() }),
        (true, true) | (false, false) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(invalid(review, Cause::invalid("spec.resourceAttributes", resource, detail)))
        }
    }
}

fn read_user(review: &Review, spec: &Value) -> Result<User, Refusal> {
    let (name, groups) = (spec["user"].as_str().unwrap_or_default(), texts(&spec["groups"]));
    if name.is_empty() && groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        return Err(invalid(review, Cause::invalid("spec.user", &json!(""), detail)));
    }
    Ok(User { name: String::from(name), uid: String::new(), groups, extra: std::collections::BTreeMap::new() })
}

/// A review in a namespace asks about that namespace.
fn refuse_elsewhere(review: &Review, namespace: &str, question: &Attributes) -> Result<(), Refusal> {
    if !review.namespaced || (!question.is_path() && question.namespace == namespace) {
        return Ok(());
    }
    let detail = "must match metadata.namespace";
    Err(invalid(review, Cause::invalid("spec.resourceAttributes.namespace", &json!(question.namespace), detail)))
}

fn access_status(server: &Server, user: &User, question: &Attributes) -> Value {
    match server.policy().grant(user, question) {
        None => json!({"allowed": false}),
        Some(Grant::Master) => json!({"allowed": true}),
        Some(Grant::Rule(place)) => {
            let (kind, name) = match place.binding_namespace.as_str() {
                "" => ("ClusterRoleBinding", place.binding),
                namespace => ("RoleBinding", format!("{}/{namespace}", place.binding)),
            };
            let reason = format!("RBAC: allowed by {kind} {name:?} of {} {:?}", place.role_kind, place.role);
            json!({"allowed": true, "reason": reason})
        }
    }
}

fn rules_status(server: &Server, user: &User, spec: &Value) -> Result<Value, Refusal> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Refusal::BadRequest(String::from("no namespace on request")));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.is_master() {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let policy = server.policy();
    for rule in policy.rules_for(user, namespace) {
        let Rule { verbs, api_groups, resources: named, resource_names, urls } = rule;
        if !named.is_empty() {
            let mut entry = json!({"verbs": verbs, "apiGroups": api_groups, "resources": named});
            if !resource_names.is_empty() {
                entry["resourceNames"] = json!(resource_names);
            }
            resources.push(entry);
        }
        if !urls.is_empty() {
            paths.push(json!({"verbs": verbs, "nonResourceURLs": urls}));
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}
