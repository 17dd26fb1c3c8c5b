//! What object stores answer when they refuse, in this crate's words.
//!
//! A server's own text is not passed on as it is: some repeat the request that was signed, with the session token in it.
//! Only its code and its message are, where neither is known here.

use super::http::TransportError;
use crate::storage::CauseKind;
use std::error::Error;

/// So much of a server's own message is passed on.
const MESSAGE: usize = 200;

/// What servers (those in Go, nginx, Apache) answer to a request without TLS on a port for TLS.
const PLAIN_TO_TLS: [&str; 3] = [
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS port",
    "plain HTTP to an SSL-enabled server port",
];

/// What an error of the transport means.
pub(crate) struct Answer {
    /// Which kind of answer it is.
    pub(crate) kind: CauseKind,
    /// In words.
    pub(crate) text: String,
}

impl Answer {
    /// Understands an error of the transport; `None` for any other.
    pub(crate) fn of(err: &(dyn Error + 'static)) -> Option<Self> {
        let transport = err.downcast_ref::<TransportError>()?;
        let kind = match transport {
            TransportError::Refused { kind, .. } => *kind,
            TransportError::Certificate(_) | TransportError::NoTls(_) | TransportError::WithTls => {
                CauseKind::Certificate
            }
            TransportError::Unreachable(_) => CauseKind::Unreachable,
            TransportError::Broken(_) | TransportError::Stalled(_) => CauseKind::Interrupted,
        };
        Some(Self { kind, text: transport.to_string() })
    }
}

/// Whether the same request, made again, may be answered otherwise without anybody acting.
pub(crate) fn may_pass(kind: CauseKind) -> bool {
    match kind {
        CauseKind::Busy | CauseKind::Unreachable | CauseKind::Interrupted => true,
        CauseKind::Full
        | CauseKind::Denied
        | CauseKind::ReadOnly
        | CauseKind::Missing
        | CauseKind::Exists
        | CauseKind::Credentials
        | CauseKind::Bucket
        | CauseKind::Region
        | CauseKind::Clock
        | CauseKind::Certificate
        | CauseKind::Other => false,
    }
}

fn wrong_region(body: &str) -> Answer {
    let plain = |region: &&str| region.len() < 40 && region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let text = match element(body, "Region").filter(plain) {
        Some(region) => format!("the bucket is in another region: {region}"),
        None => "the bucket is in another region".to_owned(),
    };
    Answer { kind: CauseKind::Region, text }
}

/// Understands an answer by its code, or else by its status.
pub(super) fn refusal(status: u16, body: &str) -> Answer {
    let code = element(body, "Code").or_else(|| json_string(body, "error")).unwrap_or_default();
    let known = |kind, words: &str| Answer { kind, text: format!("{words} ({code})") };
    match code {
        "InvalidAccessKeyId" => known(CauseKind::Credentials, "the server does not know the access key"),
        "SignatureDoesNotMatch" => known(CauseKind::Credentials, "the secret key does not belong to the access key"),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidClientTokenId" => {
            known(CauseKind::Credentials, "the session token has expired or is none")
        }
        "AuthenticationFailed" if body.contains("Request date header too old") => {
            known(CauseKind::Clock, "this machine's clock and the server's differ too much")
        }
        // Azurite says that it was not allowed where the key is wrong.
        "AuthorizationFailure" if body.contains("failed to authenticate") => {
            known(CauseKind::Credentials, "the server does not accept the key")
        }
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => {
            known(CauseKind::Credentials, "the server does not accept the key, or this machine's clock is wrong")
        }
        // <https://cloud.google.com/storage/docs/xml-api/reference-status>
        "AuthenticationRequired" | "invalid_grant" | "invalid_client" | "unauthorized_client" => {
            known(CauseKind::Credentials, "the service account's key is not accepted, or this machine's clock is wrong")
        }
        "AccessDenied" | "AllAccessDisabled" | "AuthorizationFailure" | "AuthorizationPermissionMismatch" => {
            known(CauseKind::Denied, "the key may not do this")
        }
        "NoSuchBucket" | "ContainerNotFound" => known(CauseKind::Bucket, "there is no such bucket"),
        "InvalidBucketName" | "InvalidResourceName" => known(CauseKind::Bucket, "the bucket's name is none"),
        "RequestTimeTooSkewed" | "RequestExpired" => {
            known(CauseKind::Clock, "this machine's clock and the server's differ too much")
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => wrong_region(body),
        "QuotaExceeded" | "QuotaExceededException" | "XMinioStorageFull" => {
            known(CauseKind::Full, "no space, or no quota, is left")
        }
        "SlowDown" | "ServiceUnavailable" | "ServerBusy" | "InternalError" | "RequestTimeout" => {
            known(CauseKind::Busy, "the server cannot answer now")
        }
        _ => by_status(status, code, body),
    }
}

fn by_status(status: u16, code: &str, body: &str) -> Answer {
    let message = element(body, "Message").unwrap_or_default();
    let message: String = message.lines().next().unwrap_or_default().chars().take(MESSAGE).collect();
    let told = [code, &message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    let told = if told.is_empty() { format!("status {status}") } else { format!("status {status}, {told}") };
    let (kind, words) = match status {
        301 | 307 | 308 => return wrong_region(body),
        401 => (CauseKind::Credentials, "the server does not accept the keys"),
        403 => (CauseKind::Denied, "the server refuses it"),
        404 => (CauseKind::Missing, "there is no such file"),
        409 | 412 => (CauseKind::Exists, "there is such a file already"),
        400 if PLAIN_TO_TLS.iter().any(|words| body.contains(words)) => {
            return Answer { kind: CauseKind::Certificate, text: TransportError::WithTls.to_string() };
        }
        507 => (CauseKind::Full, "no space is left"),
        408 | 429 | 500 | 502..=599 => (CauseKind::Busy, "the server cannot answer now"),
        _ => (CauseKind::Other, "the server refuses it"),
    };
    Answer { kind, text: format!("{words} ({told})") }
}

/// The text of the first element of this name.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}

/// The first string of this name in an answer in JSON.
fn json_string<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("\"{name}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_understood_by_code_and_then_by_status() {
        let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
        for (status, code, kind) in [
            (403, "InvalidAccessKeyId", CauseKind::Credentials),
            (403, "SignatureDoesNotMatch", CauseKind::Credentials),
            (400, "ExpiredToken", CauseKind::Credentials),
            (403, "AuthenticationFailed", CauseKind::Credentials),
            (401, "AuthenticationRequired", CauseKind::Credentials),
            (403, "AuthorizationFailure", CauseKind::Denied),
            (400, "InvalidResourceName", CauseKind::Bucket),
            (403, "AccessDenied", CauseKind::Denied),
            (404, "NoSuchBucket", CauseKind::Bucket),
            (404, "ContainerNotFound", CauseKind::Bucket),
            (404, "NoSuchKey", CauseKind::Missing),
            (403, "RequestTimeTooSkewed", CauseKind::Clock),
            (400, "AuthorizationHeaderMalformed", CauseKind::Region),
            (301, "PermanentRedirect", CauseKind::Region),
            (503, "SlowDown", CauseKind::Busy),
            (429, "SlowDown", CauseKind::Busy),
            (200, "InternalError", CauseKind::Busy),
            (507, "", CauseKind::Full),
            (502, "", CauseKind::Busy),
            (501, "NotImplemented", CauseKind::Other),
            (403, "", CauseKind::Denied),
            (418, "Teapot", CauseKind::Other),
        ] {
            let answer = refusal(status, &xml(code));
            assert_eq!(answer.kind, kind, "{status} {code}: {}", answer.text);
        }
        assert_eq!(refusal(400, "{\"error\": \"invalid_grant\"}").kind, CauseKind::Credentials);
        let azure = "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Request date header too old: \
                     'Mon, 01 Jan 2024 00:00:00 GMT'</AuthenticationErrorDetail></Error>";
        assert_eq!(refusal(403, azure).kind, CauseKind::Clock);
        let answer = refusal(400, "Client sent an HTTP request to an HTTPS server.\n");
        assert!(answer.kind == CauseKind::Certificate && answer.text.contains("https://"), "{}", answer.text);
    }

    #[test]
    fn a_wrong_region_is_answered_with_the_right_one() {
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        assert!(refusal(400, body).text.ends_with("eu-west-1"));
        let body = "<Error><Code>PermanentRedirect</Code><Region>a b;c</Region></Error>";
        assert!(!refusal(301, body).text.contains("a b"));
    }

    #[test]
    fn the_request_that_a_server_repeats_is_not_passed_on() {
        let body = "<Error><Code>Odd</Code><Message>no\nx-amz-security-token:hunter2</Message>\
                    <CanonicalRequest>x-amz-security-token:hunter2</CanonicalRequest></Error>";
        let text = refusal(400, body).text;
        assert!(text.contains("status 400, Odd: no") && !text.contains("hunter2"), "{text}");
    }
}
