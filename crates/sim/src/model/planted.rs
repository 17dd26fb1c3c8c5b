//! Defects planted into the model, one for each line of the list of what goes wrong that it can state. Each is looked for in the
//! smallest world that can show it.

use super::settings::{Defect, Faults, Kind, Settings};

/// A defect, the line it stands for, and the world in which it has to be found.
#[derive(Clone, Debug)]
pub struct Planted {
    /// What is wrong.
    pub defect: Defect,
    /// The line of the list; empty for one that the list does not have.
    pub line: &'static str,
    /// In words.
    pub words: &'static str,
    /// Where it shows.
    pub world: Settings,
}

/// Every planted defect.
pub fn all() -> Vec<Planted> {
    let snapshot = |faults: Faults| Settings { faults, ..Settings::small(Kind::Snapshot) };
    let calm = Settings::small(Kind::Snapshot).faults;
    let entry = |defect, line, words, world: Settings| Planted {
        defect,
        line,
        words,
        world: Settings { planted: Some(defect), ..world },
    };
    let small = || snapshot(calm);
    vec![
        entry(Defect::PhaseReset, "L01", "Pending is written whatever stands there", small()),
        entry(Defect::BlindAgentWrite, "L02", "the agent writes without a compare", small()),
        entry(
            Defect::BlindExecutorWrite,
            "L02",
            "the executor writes without a compare",
            snapshot(Faults { zombies: 1, deletions: 0, ..calm }),
        ),
        entry(Defect::ConflictHangs, "L03 L17", "an executor that meets a conflict writes no more", small()),
        entry(Defect::LossIgnored, "L05 L18", "an executor that is gone is not noticed", small()),
        entry(
            Defect::HangIgnored,
            "L06",
            "an executor that hangs is not noticed",
            snapshot(Faults { hangs: 1, ..calm }),
        ),
        entry(Defect::EarlySuccess, "L11", "success is written before the commit", small()),
        entry(Defect::LaunchTwice, "L14", "a launch whose answer was lost is made again", small()),
        entry(Defect::EffectsOnOldView, "L16", "effects are done on what was kept of an earlier read", small()),
        entry(Defect::EarlyRemoval, "L22", "the local snapshot is removed before the commit", small()),
        entry(Defect::EarlyCleaning, "L23", "what an executor leaves is removed while it runs", small()),
        entry(
            Defect::DeletionNeedsSource,
            "L24",
            "a deletion waits for a source that is gone",
            snapshot(Faults { source_deletions: 1, ..calm }),
        ),
        entry(Defect::EarlyFinalizer, "L25", "the finalizer is taken off before the volume is gone", small()),
        entry(Defect::EarlyPublish, "L26", "a volume is published while it is filled", Settings::small(Kind::Restore)),
        entry(Defect::DeletionIgnoresExecutor, "L2b", "a deletion takes the volume from a running executor", small()),
        entry(Defect::NoAdoption, "L34", "a successor does not look for a commit", small()),
        entry(Defect::NoForget, "L34", "a deletion leaves the repository's snapshot", small()),
        entry(Defect::NoReadBack, "L38", "what was committed is not read back", small()),
        entry(
            Defect::UnknownIsAbsent,
            "",
            "a look that failed counts as an absence",
            snapshot(Faults { unseen: 1, ..calm }),
        ),
        entry(Defect::NoFence, "", "a successor is launched without a written loss", small()),
        entry(Defect::GiveUpTooEarly, "", "the agent fails an attempt whose executor runs", small()),
        entry(
            Defect::ClaimSteals,
            "",
            "a claim is taken over from an executor that runs",
            snapshot(Faults { zombies: 1, deletions: 0, ..calm }),
        ),
        entry(
            Defect::EarlyPublish,
            "I8",
            "the same, where nothing goes wrong",
            Settings { faults: Faults::default(), ..Settings::small(Kind::Restore) },
        ),
        entry(
            Defect::FailureReports,
            "I4",
            "a failure reports a commit",
            snapshot(Faults { broken_copies: 1, deletions: 0, executor_crashes: 0, ..calm }),
        ),
        entry(
            Defect::FailureRemoves,
            "I9",
            "a failed attempt loses its local snapshot",
            snapshot(Faults { broken_copies: 1, ..calm }),
        ),
        entry(Defect::RetryOverRunning, "", "a retry begins over an attempt that runs", small()),
    ]
}
