//! The syntax of names, labels and annotations, with the sentences Kubernetes says about them.
//!
//! Holds: pure functions over text; nothing here knows an object.

/// What is said about a name that is no DNS subdomain.
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
     start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is said about a name that is no DNS label.
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
     end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Longest DNS subdomain.
const SUBDOMAIN_LENGTH: usize = 253;
/// Longest DNS label, label value and name part of a key.
const LABEL_LENGTH: usize = 63;

fn lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn bounded(text: &str, ends: fn(u8) -> bool, inside: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    ends(*first) && ends(*last) && bytes.iter().all(|byte| inside(*byte))
}

fn is_label(text: &str) -> bool {
    bounded(text, lower_alphanumeric, |byte| lower_alphanumeric(byte) || byte == b'-')
}

fn is_word(text: &str) -> bool {
    bounded(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

/// A DNS-1123 subdomain: the name of most objects.
pub(crate) fn subdomain(text: &str) -> Result<(), String> {
    if text.len() > SUBDOMAIN_LENGTH {
        return Err(format!("must be no more than {SUBDOMAIN_LENGTH} bytes"));
    }
    if text.split('.').all(is_label) { Ok(()) } else { Err(String::from(SUBDOMAIN)) }
}

/// A DNS-1123 label: the name of a namespace.
pub(crate) fn label(text: &str) -> Result<(), String> {
    if text.len() > LABEL_LENGTH {
        return Err(format!("must be no more than {LABEL_LENGTH} bytes"));
    }
    if is_label(text) { Ok(()) } else { Err(String::from(LABEL)) }
}

/// The key of a label or annotation, and the name of a finalizer: `[domain/]name`.
pub(crate) fn qualified(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return Err(format!(
                "a qualified name {}",
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                 character with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                return Err(String::from("prefix part must be non-empty"));
            }
            subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
    };
    if name.is_empty() {
        return Err(String::from("name part must be non-empty"));
    }
    if name.len() > LABEL_LENGTH {
        return Err(format!("name part must be no more than {LABEL_LENGTH} bytes"));
    }
    if is_word(name) { Ok(()) } else { Err(String::from(QUALIFIED)) }
}

/// The value of a label.
pub(crate) fn label_value(text: &str) -> Result<(), String> {
    if text.len() > LABEL_LENGTH {
        return Err(format!("must be no more than {LABEL_LENGTH} bytes"));
    }
    if text.is_empty() || is_word(text) { Ok(()) } else { Err(String::from(LABEL_VALUE)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text:?} is good");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text:?} is bad");
        }
    }

    #[test]
    fn subdomains() {
        let long = "a".repeat(254);
        check(subdomain, &["a", "a.b", "a-b.c9", "9"], &["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "ä", &long]);
    }

    #[test]
    fn labels() {
        let long = "a".repeat(64);
        check(label, &["a", "a-b", "0"], &["", "a.b", "A", "-", &long]);
    }

    #[test]
    fn keys() {
        let long = format!("a/{}", "b".repeat(64));
        check(
            qualified,
            &["a", "A_b.c", "topolvm.io/node", "x.y/Z"],
            &["", "/a", "a/", "a/b/c", "a b", "X_/a", "-a", &long],
        );
    }

    #[test]
    fn values() {
        let long = "a".repeat(64);
        check(label_value, &["", "a", "A.b_c-d"], &["-a", "a b", "a/b", &long]);
    }
}
