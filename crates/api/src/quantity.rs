//! Sizes as Kubernetes writes them (`10Gi`, `500M`, `1.5Gi`, `1e9`).
//!
//! Source: the serialization format in the API reference of `Quantity`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use lvault_core::Bytes;

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// It cannot be read.
    #[error("'{0}' is not a size: write a number and a unit, such as 500Mi, 10Gi or 1.5Ti")]
    NotAQuantity(String),
    /// It is zero or below.
    #[error("the size is '{0}': it must be more than 0")]
    NotPositive(String),
    /// It does not fit.
    #[error("the size '{0}' is too large: at most 8Ei")]
    TooLarge(String),
}

/// Digits before and after the point, at most.
const MOST_WHOLE: usize = 38;
const MOST_FRACTION: usize = 18;

/// Reads a size; fractions of a byte are rounded up, as Kubernetes does.
pub fn parse_size(text: &str) -> Result<Bytes, InvalidSize> {
    let wrong = || InvalidSize::NotAQuantity(text.to_owned());
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.len() == number.matches('.').count() || fraction.contains('.') {
        return Err(wrong());
    }
    // Zeros that say nothing do not make a number too long.
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.len() > MOST_WHOLE || fraction.len() > MOST_FRACTION {
        return Err(wrong());
    }
    let read = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u128>().map_err(|_| wrong()) };
    let shift = 10u128.pow(fraction.len() as u32);
    let (whole, fraction) = (read(whole)?, read(fraction)?);
    let (multiplier, divisor) = scale(suffix).ok_or_else(wrong)?;
    let too_large = || InvalidSize::TooLarge(text.to_owned());
    // One of multiplier and divisor is 1, and what is below one unit is divided last: nothing below overflows.
    let rest = (whole % divisor * shift + fraction) * multiplier;
    let bytes =
        (whole / divisor).checked_mul(multiplier).and_then(|bytes| bytes.checked_add(rest.div_ceil(shift * divisor)));
    let bytes = bytes.ok_or_else(too_large)?;
    if bytes == 0 || negative {
        return Err(InvalidSize::NotPositive(text.to_owned()));
    }
    match u64::try_from(bytes) {
        Ok(bytes) if bytes <= i64::MAX as u64 => Ok(Bytes(bytes)),
        Ok(_) | Err(_) => Err(too_large()),
    }
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    Some(match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (10u128.pow(12), 1),
        "P" => (10u128.pow(15), 1),
        "E" => (10u128.pow(18), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let power: i32 = digits.parse().ok()?;
            let size = 10u128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18)?;
            if power >= 0 { (size, 1) } else { (1, size) }
        }
    })
}

/// Writes a size with the largest binary unit that loses nothing: `1Gi`, `1536Mi`, `1000`.
pub fn format_size(size: Bytes) -> Quantity {
    const UNITS: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let text = UNITS
        .iter()
        .find(|(_, shift)| size.0 != 0 && size.0.trailing_zeros() >= *shift)
        .map_or_else(|| size.0.to_string(), |(unit, shift)| format!("{}{unit}", size.0 >> shift));
    Quantity(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("1", 1),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1.5Gi", 3 << 29),
            ("0.1m", 1),
            ("1e3", 1000),
            ("1E", 10u64.pow(18)),
            ("12E2", 1200),
            (".5Ki", 512),
            ("+4Mi", 4 << 20),
            ("5.Ki", 5120),
            ("1.00000000000000000000000000000000Ei", 1 << 60),
            ("000000000000000000000000000000000001", 1),
            ("7.999999999999999999Ei", i64::MAX as u64),
            ("0.000000000000000001n", 1),
            ("10000000000000000000000000n", 10_000_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "Gi", "1GB", "1 Gi", "ten", "1.2.3", "1e", "1e99", "--1", "1Gi ", "0x10", ".", "0.0000000000000000001"]
        {
            assert!(matches!(parse_size(text), Err(InvalidSize::NotAQuantity(_))), "{text:?}");
        }
        for text in ["0", "-1Gi", "0Gi", "-0.5"] {
            assert!(matches!(parse_size(text), Err(InvalidSize::NotPositive(_))), "{text:?}");
        }
        for text in ["8Ei", "99999E", "9223372036854775808"] {
            assert!(matches!(parse_size(text), Err(InvalidSize::TooLarge(_))), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes in 1u64..=i64::MAX as u64, shift in 0u32..60) {
            let size = Bytes((bytes >> shift).max(1) << shift.min(20) & i64::MAX as u64);
            prop_assume!(size.0 > 0);
            prop_assert_eq!(parse_size(&format_size(size).0), Ok(size));
        }
    }
}
