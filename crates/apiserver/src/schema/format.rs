//! The `format` keyword: the formats that Kubernetes checks, and no others.
//!
//! Holds: an unknown format constrains nothing, as on a cluster.

use serde_json::Value;

/// A format that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    DateTime,
    Date,
    Duration,
    Byte,
    Int32,
    Int64,
    Uuid,
    Ipv4,
    Ipv6,
    Cidr,
    Uri,
    Hostname,
}

impl Format {
    /// The format of that name, when it is one that is checked.
    pub(crate) fn named(name: &str) -> Option<Format> {
        let format = match name {
            "date-time" | "datetime" => Format::DateTime,
            "date" => Format::Date,
            "duration" => Format::Duration,
            "byte" => Format::Byte,
            "int32" => Format::Int32,
            "int64" => Format::Int64,
            "uuid" => Format::Uuid,
            "ipv4" => Format::Ipv4,
            "ipv6" => Format::Ipv6,
            "cidr" => Format::Cidr,
            "uri" => Format::Uri,
            "hostname" => Format::Hostname,
            _unchecked => return None,
        };
        Some(format)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::DateTime => "date-time",
            Format::Date => "date",
            Format::Duration => "duration",
            Format::Byte => "byte",
            Format::Int32 => "int32",
            Format::Int64 => "int64",
            Format::Uuid => "uuid",
            Format::Ipv4 => "ipv4",
            Format::Ipv6 => "ipv6",
            Format::Cidr => "cidr",
            Format::Uri => "uri",
            Format::Hostname => "hostname",
        }
    }

    /// Whether the value has this format. A value of another type has it trivially: its type is checked elsewhere.
    pub(crate) fn fits(self, value: &Value) -> bool {
        match self {
            Format::Int32 => value.as_i64().is_none_or(|number| i32::try_from(number).is_ok()) && !value.is_u64_only(),
            Format::Int64 => !value.is_u64_only(),
            Format::DateTime
            | Format::Date
            | Format::Duration
            | Format::Byte
            | Format::Uuid
            | Format::Ipv4
            | Format::Ipv6
            | Format::Cidr
            | Format::Uri
            | Format::Hostname => value.as_str().is_none_or(|text| self.fits_text(text)),
        }
    }

    fn fits_text(self, text: &str) -> bool {
        match self {
            Format::DateTime => is_date_time(text),
            Format::Date => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
            Format::Duration => is_go_duration(text),
            Format::Byte => is_base64(text),
            Format::Uuid => uuid::Uuid::try_parse(text).is_ok(),
            Format::Ipv4 => text.parse::<std::net::Ipv4Addr>().is_ok(),
            Format::Ipv6 => text.parse::<std::net::Ipv6Addr>().is_ok(),
            Format::Cidr => is_cidr(text),
            Format::Uri => text.parse::<http::Uri>().is_ok(),
            Format::Hostname => crate::names::subdomain(text).is_ok(),
            Format::Int32 | Format::Int64 => true,
        }
    }
}

/// Numbers above the largest signed integer.
trait UnsignedOnly {
    fn is_u64_only(&self) -> bool;
}

impl UnsignedOnly for Value {
    fn is_u64_only(&self) -> bool {
        self.as_u64().is_some_and(|number| i64::try_from(number).is_err())
    }
}

/// RFC 3339 with a zone, as Go's `time.RFC3339` reads it.
pub(crate) fn is_date_time(text: &str) -> bool {
    let has_separator = text.as_bytes().get(10).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'T'));
    has_separator && text.parse::<jiff::Timestamp>().is_ok()
}

pub(crate) fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let Ok(bits) = bits.parse::<u8>() else {
        return false;
    };
    match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => bits <= 32,
        Ok(std::net::IpAddr::V6(_)) => bits <= 128,
        Err(_) => false,
    }
}

/// A duration as Go's `time.ParseDuration` reads it: `1h30m`, `-1.5s`, `0`.
fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, tail) = rest.split_at(digits);
        if number.parse::<f64>().is_err() {
            return false;
        }
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        // Longest first: "ms" must not be read as "m" and a stray "s".
        let unit = units.iter().filter(|unit| tail.starts_with(**unit)).max_by_key(|unit| unit.len());
        let Some(unit) = unit else {
            return false;
        };
        rest = tail.get(unit.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("date-time", json!("2026-01-02T03:04:05Z"), true),
            ("date-time", json!("2026-01-02T03:04:05.123456+02:00"), true),
            ("date-time", json!("2026-01-02"), false),
            ("date-time", json!("2026-01-02 03:04:05Z"), false),
            ("date-time", json!("yesterday"), false),
            ("duration", json!("1h30m"), true),
            ("duration", json!("1.5ms"), true),
            ("duration", json!("0"), true),
            ("duration", json!("1"), false),
            ("duration", json!(""), false),
            ("duration", json!("ms"), false),
            ("int32", json!(2_147_483_648_i64), false),
            ("int32", json!(-5), true),
            ("int64", json!(u64::MAX), false),
            ("byte", json!("aGk="), true),
            ("byte", json!("a?"), false),
            ("cidr", json!("10.0.0.0/8"), true),
            ("cidr", json!("10.0.0.0/33"), false),
            ("ipv4", json!("10.0.0.256"), false),
            ("uuid", json!("5f9b1d52-7f0a-4f3e-9a70-4c8f0d1a2b3c"), true),
            ("int32", json!("text is checked by its type"), true),
        ];
        for (name, value, fits) in cases {
            let format = Format::named(name).expect(name);
            assert_eq!(format.fits(&value), fits, "{name} {value}");
        }
        assert_eq!(Format::named("colour"), None);
    }
}
