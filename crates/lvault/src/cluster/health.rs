//! What the kubelet and Prometheus ask over plain HTTP: `/livez`, `/readyz` and `/metrics`. Nothing else is answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::error::CliError;

/// A request's head is not longer; and it comes within [`PATIENCE`].
const LONGEST_HEAD: usize = 8192;
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the text of `/metrics`.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What is known of this process.
#[derive(Clone)]
pub struct Health {
    ready: Arc<AtomicBool>,
    waits_for: Arc<Mutex<String>>,
    metrics: Metrics,
}

impl Health {
    /// A process that is alive and not ready yet.
    pub fn new(metrics: Metrics) -> Self {
        Health { ready: Arc::default(), waits_for: Arc::default(), metrics }
    }

    /// From now on it does its work, or not any more.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    /// What it waits for while it is not ready, for people.
    pub fn set_waiting(&self, what: &str) {
        what.clone_into(&mut self.waits_for.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Answers on this address for as long as the process lives; returns once it listens, with the address.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, CliError> {
        let failed = |error: std::io::Error| {
            CliError::input(
                "--health-listen",
                format!("{address} cannot be listened on: {error}"),
                "choose another port, or 0 for any",
            )
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let health = self.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let health = health.clone();
                        tokio::spawn(async move {
                            // Whoever goes away in the middle gets no answer.
                            let _ = tokio::time::timeout(PATIENCE, health.answer(stream)).await;
                        });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(bound)
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        let mut part = [0; 1024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LONGEST_HEAD {
            let read = stream.read(&mut part).await?;
            if read == 0 {
                break;
            }
            head.extend_from_slice(part.get(..read).unwrap_or_default());
        }
        let (status, body) = self.page(&String::from_utf8_lossy(&head)).await;
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }

    async fn page(&self, head: &str) -> (&'static str, String) {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method != "GET" {
            return ("405 Method Not Allowed", "only GET\n".to_owned());
        }
        match target.split('?').next().unwrap_or_default() {
            "/livez" => ("200 OK", "ok\n".to_owned()),
            "/readyz" if self.ready.load(Ordering::SeqCst) => ("200 OK", "ok\n".to_owned()),
            "/readyz" => {
                let waits_for = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
                ("503 Service Unavailable", format!("not ready yet: {waits_for}\n"))
            }
            "/metrics" => {
                let metrics = Arc::clone(&self.metrics);
                match tokio::task::spawn_blocking(move || metrics()).await {
                    Ok(text) => ("200 OK", text),
                    Err(_) => ("500 Internal Server Error", "the metrics cannot be read\n".to_owned()),
                }
            }
            _ => ("404 Not Found", "there are /livez, /readyz and /metrics\n".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_when_it_says_so() {
        let health = Health::new(Arc::new(|| "x 1\n".to_owned()));
        let address = health.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let ask = async |line: &str| {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            answer
        };
        assert!(ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
        assert!(ask("GET /readyz").await.starts_with("HTTP/1.1 503 "));
        health.set_ready(true);
        assert!(ask("GET /readyz").await.starts_with("HTTP/1.1 200 "));
        assert!(ask("GET /metrics").await.ends_with("\r\n\r\nx 1\n"));
        assert!(ask("GET /etc/passwd").await.starts_with("HTTP/1.1 404 "));
        assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));
    }
}
