//! What a finding means for a storage's status: the whole policy, without I/O and without a clock.

use lvault_api::StoragePhase;

/// What a look at a storage found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It can be used.
    Usable,
    /// It cannot be used; the text says why, and what to do.
    Unusable(String),
    /// There is no telling; the text says why.
    Unknown(String),
    /// Nobody wants it checked: `spec.validateOnCreate` is false.
    NotWanted,
}

/// What stands in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `metadata.generation`: which spec this is.
    pub generation: Option<i64>,
    /// `status.observedGeneration`: which spec was checked last.
    pub observed: Option<i64>,
    /// `status.phase`.
    pub phase: Option<StoragePhase>,
    /// `status.message`.
    pub message: Option<String>,
    /// Somebody asked for a check and has no answer yet.
    pub asked: bool,
}

/// What a status is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `status.phase`.
    pub phase: StoragePhase,
    /// `status.message`; none when all is well.
    pub message: Option<String>,
    /// `status.observedGeneration`.
    pub observed: Option<i64>,
    /// The storage was really checked: `lastChecked` is written too.
    pub checked: bool,
}

/// What to do about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The status says it already.
    Leave,
    /// Write this, by compare-and-swap on the object that was looked at.
    Write(Verdict),
}

const NOT_WANTED: &str =
    "not checked, as spec.validateOnCreate is false; `lvault storage check` checks it all the same";

/// Decides what a storage's status is to say.
///
/// - A check that gave an answer is the truth about the spec it was made for.
/// - An unknown outcome, and no check at all, leave the last answer about the same spec as it is; where there is none,
///   the storage is Pending.
/// - What the status says already is not written again, unless somebody asked and waits for the answer.
pub fn decide(known: &Known, finding: &Finding) -> Decision {
    let answered = known.generation == known.observed
        && match known.phase {
            Some(StoragePhase::Ready | StoragePhase::Error) => true,
            Some(StoragePhase::Pending) | None => false,
        };
    let pending = |message: &str| Verdict {
        phase: StoragePhase::Pending,
        message: Some(message.to_owned()),
        observed: known.observed,
        checked: false,
    };
    let verdict = match finding {
        Finding::Usable => {
            Verdict { phase: StoragePhase::Ready, message: None, observed: known.generation, checked: true }
        }
        Finding::Unusable(message) => Verdict {
            phase: StoragePhase::Error,
            message: Some(message.clone()),
            observed: known.generation,
            checked: true,
        },
        Finding::Unknown(_) | Finding::NotWanted if answered => return Decision::Leave,
        Finding::Unknown(message) => pending(message),
        Finding::NotWanted => pending(NOT_WANTED),
    };
    let said = known.phase == Some(verdict.phase)
        && known.message == verdict.message
        && known.observed == verdict.observed
        && !(known.asked && verdict.checked);
    if said { Decision::Leave } else { Decision::Write(verdict) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StoragePhase::{Error, Pending, Ready};

    fn known(phase: Option<StoragePhase>, message: Option<&str>, observed: Option<i64>) -> Known {
        Known { generation: Some(2), observed, phase, message: message.map(str::to_owned), asked: false }
    }

    /// `None` stands for [`Decision::Leave`].
    fn check(known: &Known, finding: &Finding, expected: Option<(StoragePhase, Option<&str>, Option<i64>)>) {
        let expected = match expected {
            None => Decision::Leave,
            Some((phase, message, observed)) => Decision::Write(Verdict {
                phase,
                message: message.map(str::to_owned),
                observed,
                checked: match phase {
                    Ready | Error => true,
                    Pending => false,
                },
            }),
        };
        assert_eq!(decide(known, finding), expected, "{known:?}, {finding:?}");
    }

    #[test]
    fn every_state_meets_every_finding() {
        let none = known(None, None, None);
        let ready = known(Some(Ready), None, Some(2));
        let error = known(Some(Error), Some("full"), Some(2));
        let pending = known(Some(Pending), Some("slow"), None);
        let old_ready = known(Some(Ready), None, Some(1));
        let old_error = known(Some(Error), Some("full"), Some(1));
        let full = Finding::Unusable("full".to_owned());
        let gone = Finding::Unusable("gone".to_owned());
        let slow = Finding::Unknown("slow".to_owned());

        for (known, expected) in [
            (&none, Some((Ready, None, Some(2)))),
            (&ready, None),
            (&error, Some((Ready, None, Some(2)))),
            (&pending, Some((Ready, None, Some(2)))),
            (&old_ready, Some((Ready, None, Some(2)))),
            (&old_error, Some((Ready, None, Some(2)))),
        ] {
            check(known, &Finding::Usable, expected);
        }
        for (known, expected) in [
            (&none, Some((Error, Some("full"), Some(2)))),
            (&ready, Some((Error, Some("full"), Some(2)))),
            (&error, None),
            (&pending, Some((Error, Some("full"), Some(2)))),
            (&old_ready, Some((Error, Some("full"), Some(2)))),
            (&old_error, Some((Error, Some("full"), Some(2)))),
        ] {
            check(known, &full, expected);
        }
        check(&error, &gone, Some((Error, Some("gone"), Some(2))));
        for (known, expected) in [
            (&none, Some((Pending, Some("slow"), None))),
            (&ready, None),
            (&error, None),
            (&pending, None),
            (&old_ready, Some((Pending, Some("slow"), Some(1)))),
            (&old_error, Some((Pending, Some("slow"), Some(1)))),
        ] {
            check(known, &slow, expected);
        }
        for (known, expected) in [
            (&none, Some((Pending, Some(NOT_WANTED), None))),
            (&ready, None),
            (&error, None),
            (&pending, Some((Pending, Some(NOT_WANTED), None))),
            (&old_ready, Some((Pending, Some(NOT_WANTED), Some(1)))),
            (&old_error, Some((Pending, Some(NOT_WANTED), Some(1)))),
        ] {
            check(known, &Finding::NotWanted, expected);
        }
    }

    #[test]
    fn whoever_asked_gets_one_answer_and_no_answer_is_made_up() {
        let ready = Known { asked: true, ..known(Some(Ready), None, Some(2)) };
        check(&ready, &Finding::Usable, Some((Ready, None, Some(2))));
        check(&ready, &Finding::Unknown("slow".to_owned()), None);
    }

    #[test]
    fn what_is_decided_once_is_not_decided_again() {
        let findings = [
            Finding::Usable,
            Finding::Unusable("full".to_owned()),
            Finding::Unknown("slow".to_owned()),
            Finding::NotWanted,
        ];
        for phase in [None, Some(Ready), Some(Error), Some(Pending)] {
            for observed in [None, Some(1), Some(2)] {
                for finding in &findings {
                    let before = known(phase, Some("old"), observed);
                    let Decision::Write(Verdict { phase, message, observed, checked: _ }) = decide(&before, finding)
                    else {
                        continue;
                    };
                    let after = Known { phase: Some(phase), message, observed, ..before };
                    assert_eq!(decide(&after, finding), Decision::Leave, "{after:?}, {finding:?}");
                }
            }
        }
    }
}
