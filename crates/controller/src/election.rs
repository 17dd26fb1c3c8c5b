//! Which of several controllers works: the one whose name stands in a Lease.
//!
//! What holds here:
//! - Every write is a compare-and-swap on the Lease's `resourceVersion`.
//! - Nobody compares times of another clock: a Lease is free when it did not change for its whole duration while this
//!   replica watched it.
//! - Whoever cannot renew stops working before the duration is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;

use crate::api::{Answer, ask};

/// The name of the Lease.
const NAME: &str = "lvault-controller";

/// Why nobody can be elected.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// The API server refuses the Lease, and would refuse it again.
    #[error("the API server refuses the Lease {namespace}/{name}; may this account get, create and update it?", name = NAME)]
    Refused {
        /// The namespace.
        namespace: String,
        /// What the API server answered.
        source: Box<kube::Error>,
    },
}

/// One replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    duration: Duration,
    leading: Arc<AtomicBool>,
}

impl Election {
    /// A replica of this name. A Lease lasts for `duration` after each renewal.
    pub fn new(client: Client, namespace: String, identity: String, duration: Duration) -> Self {
        let api = Api::namespaced(client, &namespace);
        Election { api, namespace, identity, duration, leading: Arc::default() }
    }

    /// Answers whether this replica is the one that works, whenever it is asked.
    pub fn is_leading(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let leading = Arc::clone(&self.leading);
        move || leading.load(Ordering::SeqCst)
    }

    /// Waits until this replica is the one that works.
    ///
    /// # Errors
    /// The API server refuses the Lease. One that does not answer is waited for.
    pub async fn acquire(&self) -> Result<(), ElectionError> {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let found = match ask(self.limit(), self.api.get_opt(NAME)).await {
                Answer::Done(found) => found,
                Answer::NotFound | Answer::Conflict | Answer::Unknown(_) => {
                    // What could not be read was not watched.
                    seen = None;
                    self.pause().await;
                    continue;
                }
                Answer::Refused(error) => return Err(self.refused(error)),
            };
            let version = found.as_ref().and_then(ResourceExt::resource_version);
            let since = match &seen {
                Some((before, since)) if *before == version => *since,
                Some(_) | None => Instant::now(),
            };
            seen = Some((version, since));
            if self.is_free(found.as_ref(), since) && self.write(found, &self.identity).await? {
                self.leading.store(true, Ordering::SeqCst);
                tracing::info!(identity = self.identity, "this controller is the one that works");
                return Ok(());
            }
            self.pause().await;
        }
    }

    /// Renews the Lease; returns when it is not this replica's any more, or could not be renewed in time.
    pub async fn keep(&self) {
        let mut renewed = Instant::now();
        loop {
            self.pause().await;
            if let Answer::Done(Some(lease)) = ask(self.limit(), self.api.get_opt(NAME)).await {
                if holder(&lease) != Some(self.identity.as_str()) {
                    break;
                }
                if self.write(Some(lease), &self.identity).await.unwrap_or(false) {
                    renewed = Instant::now();
                }
            }
            if renewed.elapsed() > self.duration * 2 / 3 {
                break;
            }
        }
        self.leading.store(false, Ordering::SeqCst);
    }

    /// Gives the Lease back, so that the next one need not wait. A courtesy: without it the next one waits.
    pub async fn release(&self) {
        if !self.leading.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Answer::Done(Some(lease)) = ask(self.limit(), self.api.get_opt(NAME)).await
            && holder(&lease) == Some(self.identity.as_str())
        {
            let _ = self.write(Some(lease), "").await;
        }
    }

    fn is_free(&self, lease: Option<&Lease>, since: Instant) -> bool {
        match lease.map(holder) {
            None | Some(None) => true,
            Some(Some(holder)) => holder == self.identity || since.elapsed() > self.duration,
        }
    }

    /// Writes the holder over what was read. Answers whether that was done.
    async fn write(&self, found: Option<Lease>, holder: &str) -> Result<bool, ElectionError> {
        let now = MicroTime(Timestamp::now());
        let before = found.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(holder);
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(!same && found.is_some());
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX).max(1)),
            acquire_time: if same { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let params = PostParams::default();
        let written = match found {
            Some(lease) => {
                let lease = Lease { spec: Some(spec), ..lease };
                ask(self.limit(), self.api.replace(NAME, &params, &lease)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                ask(self.limit(), self.api.create(&params, &lease)).await
            }
        };
        match written {
            Answer::Done(_) => Ok(true),
            Answer::NotFound | Answer::Conflict | Answer::Unknown(_) => Ok(false),
            Answer::Refused(error) => Err(self.refused(error)),
        }
    }

    fn refused(&self, error: kube::Error) -> ElectionError {
        ElectionError::Refused { namespace: self.namespace.clone(), source: Box::new(error) }
    }

    fn limit(&self) -> Duration {
        self.duration / 5
    }

    async fn pause(&self) {
        tokio::time::sleep(self.duration / 5).await;
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}
