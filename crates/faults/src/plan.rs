//! Which request meets which fault.

use std::collections::BTreeMap;

use crate::asked::Asked;
use crate::fault::Fault;

/// Which request meets which fault. Requests are counted from 0, in the order in which they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    named: BTreeMap<u64, Fault>,
    seed: u64,
    permille: u32,
    menu: Vec<Fault>,
}

impl Plan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Of a thousand requests about `permille` meet a fault, drawn from those of the menu that fit; an item that stands in the
    /// menu twice is drawn twice as often.
    #[must_use]
    pub fn drawn(seed: u64, permille: u32, menu: Vec<Fault>) -> Plan {
        Plan { named: BTreeMap::new(), seed, permille, menu }
    }

    /// This request meets this fault, whatever is drawn.
    #[must_use]
    pub fn at(mut self, request: u64, fault: Fault) -> Plan {
        self.named.insert(request, fault);
        self
    }

    /// Whether a list may ever be answered from the past.
    pub(crate) fn remembers(&self) -> bool {
        self.menu.iter().chain(self.named.values()).any(|fault| *fault == Fault::StaleList)
    }

    /// The fault of a request. It depends on nothing but the plan, the number and the kind of the request.
    pub(crate) fn fault(&self, request: u64, asked: &Asked) -> Option<Fault> {
        if let Some(fault) = self.named.get(&request) {
            return fault.fits(asked).then_some(*fault);
        }
        let draw = mixed(self.seed ^ mixed(request));
        if draw % 1000 >= u64::from(self.permille) {
            return None;
        }
        let fitting: Vec<Fault> = self.menu.iter().copied().filter(|fault| fault.may_be_drawn(asked)).collect();
        let count = u64::try_from(fitting.len()).ok().filter(|count| *count > 0)?;
        let at = usize::try_from(mixed(draw) % count).ok()?;
        fitting.get(at).copied()
    }
}

/// A step of SplitMix64: every bit of the result depends on every bit of the input.
fn mixed(from: u64) -> u64 {
    let mut value = from.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Refusal, Seen};
    use http::Method;

    fn asked(method: Method, uri: &str) -> Asked {
        Asked::of(&method, &uri.parse().expect("a URI"))
    }

    #[test]
    fn draws_come_as_often_as_asked_and_only_where_they_fit() {
        let menu = vec![Fault::LoseAnswer(Seen::Error), Fault::ExpireWatch, Fault::StaleList];
        let plan = Plan::drawn(7, 200, menu);
        let get = asked(Method::GET, "/api/v1/secrets");
        let drawn: Vec<Fault> = (0..10_000).filter_map(|request| plan.fault(request, &get)).collect();
        assert!((1800..2200).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|fault| *fault == Fault::LoseAnswer(Seen::Error)), "only what fits a list of now");
        let past = asked(Method::GET, "/api/v1/secrets?resourceVersion=0");
        let stale = (0..10_000).filter(|request| plan.fault(*request, &past) == Some(Fault::StaleList)).count();
        assert!((800..1200).contains(&stale), "{stale}");
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let menu = vec![Fault::LoseAnswer(Seen::Error), Fault::Duplicate];
        let write = asked(Method::POST, "/api/v1/secrets");
        let draws = |seed| {
            let plan = Plan::drawn(seed, 300, menu.clone());
            (0..100).map(|request| plan.fault(request, &write)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn a_named_request_meets_its_fault_where_it_fits() {
        let plan = Plan::nothing().at(3, Fault::Refuse(Refusal::Conflict)).at(4, Fault::StaleList);
        let write = asked(Method::PUT, "/api/v1/namespaces/a/secrets/b");
        let list = asked(Method::GET, "/api/v1/secrets");
        assert_eq!(plan.fault(3, &write), Some(Fault::Refuse(Refusal::Conflict)));
        assert_eq!(plan.fault(3, &list), None);
        assert_eq!(plan.fault(4, &list), Some(Fault::StaleList));
        assert_eq!(plan.fault(5, &write), None);
    }
}
