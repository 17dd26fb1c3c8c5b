//! `serviceaccounts/token`: a token for a ServiceAccount (`kubectl create token`).
//!
//! Holds: nothing is stored; what the token says is what was asked for and what is there at this moment.

use serde_json::{Value, json};

use super::admission::Caller;
use super::token::{Claims, ISSUER, Named, Whose};
use super::user::User;
use crate::metadata;
use crate::refusal::{Cause, GroupKind, GroupResource, Refusal};
use crate::registry::{AccessKind, ClusterKind, Nature};
use crate::server::Server;
use crate::sources::seconds;
use crate::store::Key;

const GROUP: &str = "authentication.k8s.io";
const LEAST_SECONDS: i64 = 10 * 60;
const MOST_SECONDS: i64 = 1 << 32;
const USUAL_SECONDS: i64 = 60 * 60;

/// Answers a TokenRequest for this account. The caller was let in by the rules already.
pub(crate) fn answer(
    server: &Server,
    caller: &Caller,
    namespace: &str,
    name: &str,
    request: &Value,
) -> Result<Value, Refusal> {
    let spec = &request["spec"];
    let seconds_asked = spec["expirationSeconds"].as_i64().unwrap_or(USUAL_SECONDS);
    refuse_lifetime(name, seconds_asked)?;
    let account = find(server, Nature::Access(AccessKind::ServiceAccount), "serviceaccounts", namespace, name)?;
    let mut whose = Whose {
        namespace: String::from(namespace),
        serviceaccount: Named { name: String::from(name), uid: account },
        pod: None,
        secret: None,
    };
    if !spec["boundObjectRef"].is_null() {
        bind(server, &mut whose, &spec["boundObjectRef"])?;
    }
    let mut audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect();
    if audiences.is_empty() {
        audiences.push(String::from(ISSUER));
    }
    let now = server.core.sources.now();
    let claims = Claims {
        iss: String::from(ISSUER),
        sub: User::service_account(namespace, name).name,
        aud: audiences.clone(),
        exp: now.as_second().saturating_add(seconds_asked),
        nbf: now.as_second(),
        iat: now.as_second(),
        jti: server.core.sources.uid(),
        whose,
    };
    let ends = jiff::Timestamp::from_second(claims.exp).map(seconds).unwrap_or_default();
    tracing::info!(
        user = caller.user.name,
        serviceaccount = format!("{namespace}/{name}"),
        id = claims.jti,
        ends,
        "a token was given out"
    );
    Ok(json!({
        "kind": "TokenRequest",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": seconds(now)},
        "spec": {"audiences": audiences, "expirationSeconds": seconds_asked, "boundObjectRef": spec["boundObjectRef"]},
        "status": {"token": server.tokens.sign(&claims), "expirationTimestamp": ends},
    }))
}

fn refuse_lifetime(name: &str, seconds: i64) -> Result<(), Refusal> {
    let why = if seconds < LEAST_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MOST_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid {
        kind: GroupKind { group: String::from(GROUP), kind: String::from("TokenRequest") },
        name: String::from(name),
        causes: vec![Cause::invalid("spec.expirationSeconds", &json!(seconds), why)],
    })
}

/// The UID of an object.
fn find(server: &Server, nature: Nature, plural: &str, namespace: &str, name: &str) -> Result<String, Refusal> {
    let resource = server.core.registry.find_nature(nature);
    let key = |resource| Key { resource, namespace: String::from(namespace), name: String::from(name) };
    let found = resource.and_then(|resource| server.shared.read().get(&key(resource)).map(|stored| stored.uid.clone()));
    found.ok_or_else(|| Refusal::NotFound {
        resource: GroupResource { group: String::new(), resource: String::from(plural) },
        name: String::from(name),
    })
}

/// Ties the token to one more object: it ends with that, too.
fn bind(server: &Server, whose: &mut Whose, reference: &Value) -> Result<(), Refusal> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (nature, plural) = match (text("apiVersion"), kind) {
        ("v1", "Pod") => (Nature::Cluster(ClusterKind::Pod), "pods"),
        ("v1", "Secret") => (Nature::Secret, "secrets"),
        _ => {
            return Err(Refusal::BadRequest(format!(
                "cannot bind token for serviceaccount to type {kind} with name {name:?}"
            )));
        }
    };
    let uid = find(server, nature, plural, &whose.namespace, name)?;
    if !matches!(text("uid"), "" | "0") && text("uid") != uid {
        return Err(Refusal::Conflict {
            resource: GroupResource { group: String::new(), resource: String::from(plural) },
            name: String::from(name),
            why: format!("the UID in the bound object reference ({}) does not match the UID in record", text("uid")),
        });
    }
    let bound = Some(Named { name: String::from(name), uid });
    if kind == "Pod" {
        let resource = server.core.registry.find_nature(nature);
        let pod = resource.and_then(|resource| {
            let key = Key { resource, namespace: whose.namespace.clone(), name: String::from(name) };
            server.shared.read().get(&key).map(|stored| stored.object())
        });
        let runs_as = pod.as_ref().and_then(|pod| pod["spec"]["serviceAccountName"].as_str()).unwrap_or_default();
        if runs_as != whose.serviceaccount.name {
            return Err(Refusal::BadRequest(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name",
                whose.serviceaccount.name
            )));
        }
        whose.pod = bound;
    } else {
        whose.secret = bound;
    }
    Ok(())
}

/// The name that a request may say for itself has to be that of the path.
pub(crate) fn refuse_other_name(request: &Value, namespace: &str, name: &str) -> Result<(), Refusal> {
    let said = |field: &str| metadata::text(request, field);
    if (!said("name").is_empty() && said("name") != name)
        || (!said("namespace").is_empty() && said("namespace") != namespace)
    {
        return Err(Refusal::BadRequest(format!(
            "the name or namespace in the TokenRequest does not match those of the path ({namespace}/{name})"
        )));
    }
    Ok(())
}
