//! The way to the API: opened again from its source whenever nobody answers, because the server may have been started
//! again on another port.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lvault_api::task::ApiAccess;

/// How long a request may go without an answer. What was asked is unknown then, and is looked at again.
const ANSWER: Duration = Duration::from_secs(20);

/// Why the API cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The kubeconfig is missing or wrong.
    #[error("cannot use the kubeconfig {path}: {problem}; is the state folder still there?")]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The pod's service account is missing or wrong.
    #[error("cannot use the pod's service account: {0}; does the pod mount its token?")]
    InCluster(String),
}

/// A client, and where to get a new one.
pub struct Connection {
    source: Option<ApiAccess>,
    client: Mutex<Client>,
}

impl Connection {
    /// Opens the connection that a task names.
    pub async fn open(source: ApiAccess) -> Result<Self, ConnectionError> {
        let client = connect(&source).await?;
        Ok(Connection { source: Some(source), client: Mutex::new(client) })
    }

    /// A client that stays as it is.
    pub fn fixed(client: Client) -> Self {
        Connection { source: None, client: Mutex::new(client) }
    }

    /// The client to use now.
    pub fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for the API anew. Where that fails, the old client stays: the next try may find more.
    pub(crate) async fn renew(&self) {
        let Some(source) = &self.source else { return };
        match connect(source).await {
            Ok(client) => *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client,
            Err(problem) => tracing::debug!("{problem}"),
        }
    }
}

async fn connect(source: &ApiAccess) -> Result<Client, ConnectionError> {
    let mut config = match source {
        ApiAccess::Kubeconfig(path) => {
            let wrong = |problem: String| ConnectionError::Kubeconfig { path: path.clone(), problem };
            let kubeconfig = Kubeconfig::read_from(path).map_err(|e| wrong(e.to_string()))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| wrong(e.to_string()))?
        }
        ApiAccess::InCluster => Config::infer().await.map_err(|e| ConnectionError::InCluster(e.to_string()))?,
    };
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("lvault-executor/", env!("CARGO_PKG_VERSION")))));
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(ANSWER);
    config.write_timeout = Some(ANSWER);
    Client::try_from(config).map_err(|e| match source {
        ApiAccess::Kubeconfig(path) => ConnectionError::Kubeconfig { path: path.clone(), problem: e.to_string() },
        ApiAccess::InCluster => ConnectionError::InCluster(e.to_string()),
    })
}
