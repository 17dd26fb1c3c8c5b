//! What is not even HTTP.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::setup::{Listening, THINGS, bounded, in_memory};

/// What is not even HTTP is answered, too, as far as there is somebody to answer.
#[tokio::test]
async fn malformed_http_is_answered() {
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let token = listening.identity.token();
    let long = "x".repeat(1_000_000);
    let many: String = (0..300).map(|index| format!("x-{index}: y\r\n")).collect();
    for (request, codes) in [
        (String::from("NONSENSE\r\n\r\n"), vec![400]),
        (String::from("GET\r\n\r\n"), vec![400]),
        (String::from("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n"), vec![400]),
        (String::from("GET / HTTP/9.9\r\nhost: x\r\n\r\n"), vec![400]),
        (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), vec![414, 431]),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n"), vec![431]),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), vec![431]),
        (format!("POST {THINGS} HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n"), vec![400]),
        (
            format!(
                "POST {THINGS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            ),
            vec![400],
        ),
        (
            format!(
                "GET {THINGS}/%zz%ff HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
            ),
            vec![404],
        ),
        (format!("GET {THINGS} HTTP/1.0\r\nauthorization: Bearer {token}\r\n\r\n"), vec![200]),
    ] {
        let mut stream = listening.tls().await;
        let shown: String = request.chars().take(60).collect();
        let talk = async {
            drop(stream.write_all(request.as_bytes()).await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            answer
        };
        let answer = bounded(&shown, talk).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let code: Option<u16> = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        assert!(code.is_some_and(|code| codes.contains(&code)), "{shown}: {answer:.200}");
    }
    listening.stop().await;
}
