//! Key files, which nothing seals: whoever can write to the storage says how much a password's derivation takes.
//!
//! What holds: no key file makes a process take more memory or time than the most that programs ask for, by far.

use serde::Deserialize;

/// Bytes of memory, at most. restic asks for 32 MiB, rustic for 128.
pub(crate) const MOST_MEMORY: u64 = 1 << 30;
/// Blocks that are mixed, at most: some ten seconds. restic chooses them for half a second.
pub(crate) const MOST_WORK: u64 = 1 << 25;

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

/// What deriving a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) memory: u64,
    pub(crate) work: u64,
}

/// What a key file asks for; in words why it is not tried otherwise.
pub(crate) fn cost(json: &[u8]) -> Result<Cost, String> {
    let parsed: Result<Parameters, _> = serde_json::from_slice(json);
    let Parameters { n, r, p } = parsed.map_err(|err| format!("it is no key file: {err}"))?;
    if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
        return Err(format!("its parameters of scrypt are none: N {n}, r {r}, p {p}"));
    }
    let work = u64::from(n).saturating_mul(r.into());
    let memory = work.saturating_add(u64::from(r).saturating_mul(p.into())).saturating_mul(128);
    let cost = Cost { memory, work: work.saturating_mul(p.into()) };
    if cost.memory > MOST_MEMORY || cost.work > MOST_WORK {
        let mebibytes = cost.memory >> 20;
        return Err(format!(
            "its parameters of scrypt (N {n}, r {r}, p {p}) ask for {mebibytes} MiB and too much time"
        ));
    }
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_ask_for_is_given_and_no_more() {
        let file = |n: u32, r: u32, p: u32| format!("{{\"N\":{n},\"r\":{r},\"p\":{p},\"kdf\":\"scrypt\"}}");
        for (n, r, p) in [(32768, 8, 1), (32768, 8, 10), (131_072, 8, 1), (2, 1, 1)] {
            assert!(cost(file(n, r, p).as_bytes()).is_ok(), "{n} {r} {p}");
        }
        let bad = [(1 << 31, 8, 1), (1 << 15, 8, 1 << 20), (1 << 15, 1 << 29, 1), (0, 8, 1), (1, 8, 1), (3, 8, 1)];
        for (n, r, p) in bad.into_iter().chain([(2, 0, 1), (2, 1, 0), (u32::MAX, u32::MAX, u32::MAX)]) {
            assert!(cost(file(n, r, p).as_bytes()).is_err(), "{n} {r} {p}");
        }
        assert!(cost(b"{}").is_err() && cost(b"").is_err());
    }
}
