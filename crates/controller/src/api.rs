//! Requests to the API. Each one is bounded in time, and its outcome is done, refused or unknown.

use std::future::Future;
use std::time::Duration;

use futures::Stream;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Error};
use lvault_api::SnapshotBackupStorage;

/// The storages as plain objects: one that does not parse is one wrong storage, not an unreadable list of all.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<SnapshotBackupStorage>(&())
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// It was done.
    Done(T),
    /// There is no such object (404).
    NotFound,
    /// Somebody has written since (409).
    Conflict,
    /// The API server refuses it, and would refuse it again.
    Refused(Error),
    /// There is no telling: no answer, or none that says whether it was done.
    Unknown(String),
}

/// Waits for a request, at most `limit`.
pub(crate) async fn ask<T>(limit: Duration, request: impl Future<Output = Result<T, Error>>) -> Answer<T> {
    match tokio::time::timeout(limit, request).await {
        Err(_) => Answer::Unknown("the API server gave no answer in time".to_owned()),
        Ok(Ok(value)) => Answer::Done(value),
        Ok(Err(error)) => match code(&error) {
            Some(404) => Answer::NotFound,
            Some(409) => Answer::Conflict,
            // Too many requests, and a request that took too long: both pass.
            Some(408 | 429) => Answer::Unknown(error.to_string()),
            Some(400..=499) => Answer::Refused(error),
            Some(_) | None => Answer::Unknown(error.to_string()),
        },
    }
}

fn code(error: &Error) -> Option<u16> {
    if let Error::Api(status) = error { Some(status.code) } else { None }
}

/// Lists the storages once: a CRD or a right that is missing is said at start, and not waited for.
pub(crate) async fn first_list(client: &Client, limit: Duration) -> Result<(), Error> {
    let storages: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let request = async { storages.list(&ListParams::default().limit(1)).await };
    match tokio::time::timeout(limit, request).await {
        Ok(Err(error)) if matches!(code(&error), Some(401 | 403 | 404)) => Err(error),
        // Whatever else went wrong may pass: the watch goes on trying.
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
    }
}

/// Every change of every storage, for ever.
pub(crate) fn watch(
    client: &Client,
    seed: u64,
) -> impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + use<> {
    let storages: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(800))
        .with_max_delay(Duration::from_secs(30))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(seed);
    watcher(storages, watcher::Config::default()).backoff(watcher::ExponentialBackoff::from(backoff))
}
