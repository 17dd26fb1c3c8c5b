//! What the controller found out, told as Kubernetes events, so that `kubectl describe` shows it.
//!
//! What holds here: an event is a courtesy. Where it cannot be written, nothing else stops, and nobody tries again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, PostParams};

/// Where events of objects that are in no namespace are.
const CLUSTER: &str = "default";
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(2);
/// As long as the API allows a message to be, in bytes.
const LONGEST: usize = 1024;

/// One thing to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// Something is to be done about it.
    pub(crate) warning: bool,
    /// Why, in one CamelCase word.
    pub(crate) reason: &'a str,
    /// What happened, for people.
    pub(crate) message: &'a str,
}

/// Tells it about an object. The same at the same time is one event, however often it is told.
pub(crate) async fn tell(client: &Client, about: ObjectReference, told: Told<'_>, now: Timestamp) {
    let namespace = about.namespace.clone().unwrap_or_else(|| CLUSTER.to_owned());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let event = event(about, &namespace, told, now);
    match tokio::time::timeout(LIMIT, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => {}
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
        Ok(Err(problem)) => tracing::debug!("cannot write an event: {problem}"),
        Err(_) => tracing::debug!("writing an event took too long"),
    }
}

fn event(about: ObjectReference, namespace: &str, told: Told<'_>, now: Timestamp) -> Event {
    let Told { warning, reason, message } = told;
    let mut hasher = DefaultHasher::new();
    (&about.uid, reason, message, now.as_millisecond()).hash(&mut hasher);
    let name: String = about.name.as_deref().unwrap_or_default().chars().take(200).collect();
    let end = (0..=message.len().min(LONGEST)).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", name.trim_end_matches(['.', '-']), hasher.finish())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: about,
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.get(..end).unwrap_or_default().to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("lvault-controller".to_owned()), ..EventSource::default() }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_long_as_the_api_allows() {
        let about = ObjectReference { name: Some("a".repeat(300)), ..ObjectReference::default() };
        let message = "é".repeat(600);
        let told = Told { warning: true, reason: "R", message: &message };
        let event = event(about, "n", told, Timestamp::UNIX_EPOCH);
        assert_eq!(event.message.map(|text| text.len()), Some(1024));
        assert!(event.metadata.name.is_some_and(|name| name.len() <= 253));
    }
}
