//! Reading what a user writes on the command line: names, references, sizes and durations.
//!
//! Everything is read here, once, before anything is written anywhere.

use std::time::Duration;

use lvault_api::{StorageReference, parse_size};
use lvault_core::Bytes;

use crate::error::CliError;

/// Reads the name of an object: what Kubernetes calls a DNS-1123 subdomain.
pub fn object_name(field: &str, name: &str) -> Result<String, CliError> {
    let remedy = "use 1 to 253 of the characters a-z, 0-9, '-' and '.', each part between dots starting and ending \
                  with a letter or digit, such as data-1";
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let part = |part: &str| edge(part.chars().next()) && edge(part.chars().last()) && part.chars().all(inside);
    if name.len() <= 253 && name.split('.').all(part) {
        Ok(name.to_owned())
    } else {
        Err(CliError::input(field, format!("'{name}' is no name that Kubernetes accepts"), remedy))
    }
}

/// Reads the name of a namespace: what Kubernetes calls a DNS-1123 label.
pub fn namespace(field: &str, name: &str) -> Result<String, CliError> {
    if name.len() <= 63 && !name.contains('.') && object_name(field, name).is_ok() {
        return Ok(name.to_owned());
    }
    let remedy = "use 1 to 63 of the characters a-z, 0-9 and '-', such as default";
    Err(CliError::input(field, format!("'{name}' is no namespace that Kubernetes accepts"), remedy))
}

/// Reads a storage as `NAME` or `NAMESPACE/NAME`.
pub fn storage_reference(field: &str, text: &str) -> Result<StorageReference, CliError> {
    let (space, name) = text.split_once('/').unwrap_or(("default", text));
    Ok(StorageReference { name: object_name(field, name)?, namespace: namespace(field, space)? })
}

/// Reads a size.
pub fn size(field: &str, text: &str) -> Result<Bytes, CliError> {
    parse_size(text).map_err(|error| CliError::size(field, &error))
}

/// Reads a duration such as `500ms`, `30s`, `5m` or `2h`; for clap.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write a number and a unit, such as 30s, 5m or 2h".to_owned())?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let scale = millis.ok_or_else(|| format!("'{unit}' is no unit of time: use ms, s, m or h"))?;
    match number.checked_mul(scale) {
        Some(0) => Err("a duration has to be more than 0".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("that is longer than anybody can wait".to_owned()),
    }
}

/// The name of this host, as a Kubernetes node name: in lower case.
pub fn host() -> Result<String, CliError> {
    let path = "/proc/sys/kernel/hostname";
    let read = std::fs::read_to_string(path)
        .map_err(|error| CliError::file("reading the host's name from", path, error, "say --node NAME"))?;
    object_name("the host's name", read.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_accepts() {
        for good in ["a", "data-1", "a.b-c.d", "0", &"a".repeat(253)] {
            assert_eq!(object_name("NAME", good).ok().as_deref(), Some(good));
        }
        for bad in ["", "A", "-a", "a-", "a..b", ".a", "a_b", "a b", "ä", "../x", "a/b", "a\n", &"a".repeat(254)] {
            let error = object_name("NAME", bad).expect_err(bad);
            assert!(error.to_string().starts_with("NAME: "), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_storage_is_named_with_or_without_its_namespace() {
        let read = |text| storage_reference("--storage", text).map(|r| r.to_string()).ok();
        assert_eq!(read("s"), Some("default/s".to_owned()));
        assert_eq!(read("team/s"), Some("team/s".to_owned()));
        for bad in ["", "/s", "a/", "a/b/c", "A/s", "a.b/s"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "1d", "-1s", "0s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
