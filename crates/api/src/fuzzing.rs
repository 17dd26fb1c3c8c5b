//! What fuzzing runs: the parsers of texts in specs, as functions of bytes that assert what has to hold.
//!
//! Only there in tests, which run the targets over their corpus, and under `cfg(lvault_fuzzing)`, where libFuzzer searches for
//! inputs: `make fuzz`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that panics has found something")]

use lvault_core::Bytes;

use crate::{InvalidSize, LogicalVolume, SnapshotBackupStorage, format_size, parse_size, validate};

/// A parser's name, and what runs it on bytes and asserts what has to hold.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name: their corpus lies in `fuzz/corpus/NAME`.
pub const TARGETS: &[Target] = &[("quantity", quantity), ("volume", volume)];

/// A size: read as long division on paper reads it, and read back as it is written.
fn quantity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parsed = parse_size(&text);
    match (&parsed, on_paper(&text)) {
        (Ok(size), Some(bytes)) => assert_eq!(size.0.to_string(), bytes, "{text:?}"),
        (Err(InvalidSize::NotPositive(_)), Some(bytes)) => assert!(bytes == "0" || text.starts_with('-'), "{text:?}"),
        (Err(InvalidSize::TooLarge(_)), Some(bytes)) => {
            let most = i64::MAX.to_string();
            assert!((bytes.len(), bytes.as_str()) > (most.len(), most.as_str()), "{text:?} is {bytes}");
        }
        (Err(InvalidSize::NotAQuantity(_)), None) => {}
        (parsed, bytes) => panic!("{text:?}: {parsed:?}, on paper {bytes:?}"),
    }
    if let Ok(size) = parsed {
        assert_eq!(parse_size(&format_size(size).0), Ok(size), "{text:?}");
    }
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    let size = Bytes(u64::from_le_bytes(bytes) & i64::MAX as u64);
    if size.0 > 0 {
        assert_eq!(parse_size(&format_size(size).0), Ok(size));
    }
}

/// The number of bytes without its sign and rounded up, by digits, of any length; none for what is no quantity.
fn on_paper(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || number.len() == number.matches('.').count() {
        return None;
    }
    let (factor, power): (u64, i32) = match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => (1, exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| (-18..=18).contains(power))?),
    };
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    // What is longer is refused rather than read.
    if whole.len() > 38 || fraction.len() > 18 {
        return None;
    }
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    multiply(&mut digits, factor);
    let shift = power - i32::try_from(fraction.len()).ok()?;
    if shift >= 0 {
        digits.extend(std::iter::repeat_n(0, shift.unsigned_abs() as usize));
    } else {
        let kept = digits.len().saturating_sub(shift.unsigned_abs() as usize);
        let is_rounded = digits.drain(kept..).any(|digit| digit != 0);
        add(&mut digits, u64::from(is_rounded));
    }
    let text: String = digits.iter().skip_while(|digit| **digit == 0).map(|digit| char::from(digit + b'0')).collect();
    Some(if text.is_empty() { "0".to_owned() } else { text })
}

/// Multiplies a number of decimal digits.
fn multiply(digits: &mut Vec<u8>, factor: u64) {
    let mut carry = 0_u128;
    for digit in digits.iter_mut().rev() {
        let product = u128::from(*digit) * u128::from(factor) + carry;
        (*digit, carry) = ((product % 10) as u8, product / 10);
    }
    while carry > 0 {
        digits.insert(0, (carry % 10) as u8);
        carry /= 10;
    }
}

/// Adds to a number of decimal digits.
fn add(digits: &mut Vec<u8>, mut carry: u64) {
    for digit in digits.iter_mut().rev() {
        let sum = u64::from(*digit) + carry;
        (*digit, carry) = ((sum % 10) as u8, sum / 10);
    }
    if carry > 0 {
        digits.insert(0, carry as u8);
    }
}

/// Objects as an API answers them: validated or refused with a field; what was read is written as what reads the same.
fn volume(data: &[u8]) {
    if let Ok(volume) = serde_json::from_slice::<LogicalVolume>(data) {
        match validate(&volume) {
            Ok(_) => {}
            Err(refused) => assert!(!refused.to_string().is_empty()),
        }
        let written = serde_json::to_value(&volume).expect("JSON");
        let again: LogicalVolume = serde_json::from_value(written.clone()).expect("what was written is read");
        assert_eq!(serde_json::to_value(&again).expect("JSON"), written);
    }
    if let Ok(storage) = serde_json::from_slice::<SnapshotBackupStorage>(data) {
        let written = serde_json::to_value(&storage).expect("JSON");
        let again: SnapshotBackupStorage = serde_json::from_value(written.clone()).expect("what was written is read");
        assert_eq!(serde_json::to_value(&again).expect("JSON"), written);
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_holds_over_its_corpus() {
        super::replay::corpus(super::TARGETS);
    }
}
