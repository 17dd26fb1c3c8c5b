//! The address of a server: a scheme, a host and a port, and nothing else.

use std::fmt;

/// The address of a server, such as `https://s3.example.com:9000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    is_http: bool,
    authority: String,
}

/// Why a string is no endpoint. What was given is not repeated: it might hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no address of a server: {problem}; write it as https://HOST[:PORT], or http://HOST[:PORT] without TLS")]
pub struct EndpointError {
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Endpoint {
    /// Parses an address. Without a scheme it is `https`.
    ///
    /// # Errors
    /// [`EndpointError`] where there is no host, or more than a scheme, a host and a port.
    pub fn parse(endpoint: &str) -> Result<Self, EndpointError> {
        let refused = |problem| Err(EndpointError { problem });
        let (is_http, rest) = match endpoint.split_once("://") {
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) => (true, rest),
            Some(_) => return refused("its scheme is neither http nor https"),
            None => (false, endpoint),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            return refused("it holds a user or a password, which belong into the storage's Secret");
        }
        if rest.contains(['/', '?', '#']) {
            return refused("it holds a path; the bucket and the prefix have fields of their own");
        }
        match rest.parse::<::http::uri::Authority>() {
            Ok(authority) if !authority.host().is_empty() && !rest.ends_with(':') => {
                Ok(Self { is_http, authority: rest.to_ascii_lowercase() })
            }
            Ok(_) | Err(_) => refused("it has no host, or characters that no host has"),
        }
    }

    /// Whether it is spoken to without TLS.
    pub fn is_http(&self) -> bool {
        self.is_http
    }

    /// Whether its host begins with the bucket's (or the account's) name.
    pub(super) fn is_of_bucket(&self, bucket: &str) -> bool {
        self.authority.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'))
    }

    /// The server itself, where the host begins with the bucket's name.
    pub(super) fn without_bucket(&self, bucket: &str) -> Self {
        let server = self.authority.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('.'));
        Self { is_http: self.is_http, authority: server.unwrap_or(&self.authority).to_owned() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_http { "http" } else { "https" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (given, parsed) in [
            ("https://s3.example.com", "https://s3.example.com"),
            ("https://s3.example.com/", "https://s3.example.com"),
            ("s3.amazonaws.com", "https://s3.amazonaws.com"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("HOST:1", "https://host:1"),
        ] {
            assert_eq!(Endpoint::parse(given).map(|it| it.to_string()).as_deref(), Ok(parsed), "{given}");
        }
        for bad in ["", "https://", "ftp://x", "https://x/bucket", "https://x?y", "a b", "x:", "https:/x", "x#y"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        let error = Endpoint::parse("https://user:hunter2@host").unwrap_err().to_string();
        assert!(error.contains("Secret") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_host_that_begins_with_the_bucket_is_the_buckets_own() {
        let endpoint = Endpoint::parse("https://b.s3.example.com").unwrap();
        assert!(endpoint.is_of_bucket("b") && !endpoint.is_of_bucket("b.s") && !endpoint.is_of_bucket("s3"));
        assert_eq!(endpoint.without_bucket("b").to_string(), "https://s3.example.com");
        assert_eq!(endpoint.without_bucket("c"), endpoint);
    }
}
