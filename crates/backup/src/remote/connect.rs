//! Connecting to a bucket: object_store's clients over our own transport.

use super::http::Transport;
use super::token::Tokens;
use super::{Endpoint, Remote, Service};
use crate::storage::{Cause, CauseKind, StorageError};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// So often a single request is made again, quickly; what still fails is tried again by [`crate::storage::Storage`], which
/// looks at the time.
const QUICK_RETRIES: usize = 3;

/// Prepares the client of a bucket. No request is made.
///
/// # Errors
/// [`StorageError::Connect`] when the keys or certificates are none.
pub(crate) fn connect(remote: &Remote) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let failed = |kind, text: String| StorageError::Connect { path: remote.to_string(), cause: Cause { kind, text } };
    let with_tls = match &remote.service {
        Service::S3 { endpoint, .. } => !endpoint.is_http(),
        Service::Gcs { endpoint, .. } | Service::Azure { endpoint, .. } => {
            !endpoint.as_ref().is_some_and(Endpoint::is_http)
        }
    };
    let transport = Transport::new(&remote.options, with_tls).map_err(|text| failed(CauseKind::Certificate, text))?;
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: QUICK_RETRIES,
        retry_timeout: remote.options.patience,
    };
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match &remote.service {
        Service::S3 { endpoint, region, key_id, key, session_token } => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(&remote.bucket)
                .with_endpoint(endpoint.to_string())
                .with_virtual_hosted_style_request(endpoint.is_of_bucket(&remote.bucket))
                .with_allow_http(endpoint.is_http())
                .with_region(region)
                .with_access_key_id(key_id)
                .with_secret_access_key(key.expose())
                // Not every server knows how to delete several files at once.
                .with_disable_bulk_delete(true)
                .with_retry(retry)
                .with_http_connector(transport);
            if let Some(token) = session_token {
                builder = builder.with_token(token.expose());
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Service::Gcs { service_account, endpoint } => {
            if let Some(field) = address_in(service_account.expose()) {
                return Err(failed(CauseKind::Credentials, not_from_the_key(field)));
            }
            let builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(&remote.bucket)
                .with_base_url(&endpoint.as_ref().map_or_else(|| GOOGLE.to_owned(), Endpoint::to_string))
                .with_retry(retry)
                .with_http_connector(transport.clone());
            let signer = builder.clone().with_service_account_key(service_account.expose());
            Tokens::new(signer).and_then(|tokens| {
                let transport = transport.with_tokens(Arc::clone(&tokens));
                let store = builder.with_credentials(tokens).with_http_connector(transport).build()?;
                Ok(Arc::new(store) as _)
            })
        }
        Service::Azure { account, key, endpoint } => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_container_name(&remote.bucket)
                .with_account(account)
                .with_access_key(key.expose())
                .with_retry(retry)
                .with_http_connector(transport);
            if let Some(endpoint) = endpoint {
                builder = builder.with_allow_http(endpoint.is_http()).with_endpoint(of_account(endpoint, account));
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
    };
    // What the builders say may repeat what they were given: it is not passed on.
    store.map_err(|_| {
        let text = match &remote.service {
            Service::S3 { .. } => "its endpoint, region or keys cannot be used",
            Service::Gcs { .. } => "GOOGLE_SERVICE_ACCOUNT_JSON_KEY is not the key of a service account in JSON",
            Service::Azure { .. } => "AZURE_ACCOUNT_KEY is not an account's key in base64",
        };
        failed(CauseKind::Credentials, text.to_owned())
    })
}

/// Where Google Cloud Storage is, unless a storage's endpoint says otherwise.
const GOOGLE: &str = "https://storage.googleapis.com";

/// What a service account's key would say about the server, in fields of object_store's own that Google's documents do not have.
/// Where data goes is said by the storage, which people read, and not by its Secret, which they do not.
fn address_in(key: &str) -> Option<&'static str> {
    let key: serde_json::Value = serde_json::from_str(key).ok()?;
    let says = |field: &&str| {
        !matches!(key.get(*field), None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)))
    };
    ["gcs_base_url", "disable_oauth"].into_iter().find(says)
}

fn not_from_the_key(field: &str) -> String {
    format!(
        "GOOGLE_SERVICE_ACCOUNT_JSON_KEY holds '{field}', which no key of Google's does; take it out, and name the server in \
         the storage's endpoint"
    )
}

/// Where an account's containers are: on a host of its own, or below the account in the path.
fn of_account(endpoint: &Endpoint, account: &str) -> String {
    if endpoint.is_of_bucket(account) { endpoint.to_string() } else { format!("{endpoint}/{account}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_names_a_server_is_refused_and_not_followed() {
        for (key, refused) in [
            (r#"{"gcs_base_url": "https://elsewhere.example.com"}"#, Some("gcs_base_url")),
            (r#"{"disable_oauth": true}"#, Some("disable_oauth")),
            (
                r#"{"disable_oauth": false, "gcs_base_url": null, "token_uri": "https://oauth2.googleapis.com/token"}"#,
                None,
            ),
            ("hunter2", None),
        ] {
            assert_eq!(address_in(key), refused, "{key}");
            let service = Service::Gcs { service_account: crate::secret::Secret::new(key), endpoint: None };
            let error = connect(&Remote { service, ..crate::remote::tests::s3("x", None) }).unwrap_err();
            let text = error.to_string();
            assert!(!text.contains("elsewhere") && !text.contains("hunter2"), "{text}");
            assert_eq!(refused.is_some_and(|field| text.contains(field)), refused.is_some(), "{text}");
        }
    }

    #[test]
    fn an_azure_account_has_a_host_or_a_path() {
        for (endpoint, at) in [
            ("https://acc.blob.example.com", "https://acc.blob.example.com"),
            ("https://blob.example.com", "https://blob.example.com/acc"),
            ("http://127.0.0.1:10000", "http://127.0.0.1:10000/acc"),
        ] {
            assert_eq!(of_account(&Endpoint::parse(endpoint).unwrap(), "acc"), at);
        }
    }
}
