//! The API as a client of its own sees it, and the API server alone, without an agent.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lvault_apiserver::tls::Identity;
use lvault_apiserver::{ApiServer, Config as ServerConfig};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A client of the server that a kubeconfig leads to, if it can be read.
pub(crate) async fn client(kubeconfig: &Path) -> Option<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).ok()?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.ok()?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).ok()
}

/// The API server of a state folder, served by the test itself where `lvault up` served it: the agent is dead, and the
/// API answers.
pub(crate) struct Alone {
    runtime: Runtime,
    server: ApiServer,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

impl Alone {
    /// Serves the state folder of an lvault that does not run.
    pub(crate) fn start(state: &Path) -> Alone {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let port: u16 = std::fs::read_to_string(state.join("port")).unwrap().trim().parse().unwrap();
        let identity = Identity::load_or_create(&state.join("tls")).unwrap();
        let config = ServerConfig::in_file(state.join("state.redb"), lvault_api::crds::all());
        let (server, listener) = runtime.block_on(async {
            let server = ApiServer::open(config).await.expect("the store of a killed lvault opens");
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("its port is free");
            (server, listener)
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = runtime.spawn({
            let server = server.clone();
            async move {
                let stopped = async move {
                    let _ = stopped.await;
                };
                server.serve(listener, &identity, stopped).await.expect("served to the end");
            }
        });
        Alone { runtime, server, stop: Some(stop), served: Some(served) }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.stop.take());
        let (server, served) = (self.server.clone(), self.served.take());
        self.runtime.block_on(async move {
            if let Some(served) = served {
                let _ = served.await;
            }
            server.close().await;
        });
    }
}
