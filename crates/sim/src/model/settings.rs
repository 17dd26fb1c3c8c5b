//! Which worlds are searched: what the object is for, how many faults of each kind may come, and planted defects.

/// One world.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, for people.
    pub name: &'static str,
    /// What the object is for.
    pub kind: Kind,
    /// Agents over the same node. More than one means that the owner's lock is broken.
    pub agents: usize,
    /// Executors that may be lost before an attempt fails.
    pub backoff_limit: u32,
    /// Keep the local snapshot of a success.
    pub keep_local: bool,
    /// Attempts that the user may ask for.
    pub attempts: u32,
    /// What may go wrong, and how often.
    pub faults: Faults,
    /// A defect, to see the check find it.
    pub planted: Option<Defect>,
    /// The invariant that is not looked at, to see whether another check would have found the same.
    pub without: Option<u8>,
    /// A search with more states than this is given up.
    pub limit: usize,
}

/// What the object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A snapshot that is copied off the node.
    Snapshot,
    /// A volume that is filled from a repository.
    Restore,
}

/// What may still happen, each so many times. Lost requests and answers of the agent need no count: an agent keeps nothing
/// in memory that a step depends on, so an effect whose answer is lost leaves the same world as one that was answered,
/// and one that was not made the same as before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// An agent ends anywhere and is started again.
    pub agent_crashes: u8,
    /// An executor ends anywhere.
    pub executor_crashes: u8,
    /// An executor stops anywhere and stays alive.
    pub hangs: u8,
    /// An executor that hangs goes on again, at any time.
    pub wakes: u8,
    /// The agent takes a healthy executor for hung: its renewals did not arrive.
    pub missed_renewals: u8,
    /// An executor's write is made and its answer is lost.
    pub lost_answers: u8,
    /// Something cannot be seen in a look of the agent.
    pub unseen: u8,
    /// An effect on the node fails for good.
    pub broken_effects: u8,
    /// A copy fails for good.
    pub broken_copies: u8,
    /// The user deletes the object.
    pub deletions: u8,
    /// The user deletes the source.
    pub source_deletions: u8,
    /// The storage goes away, or comes back.
    pub storage_changes: u8,
    /// An executor that is seen as ended goes on all the same: not possible for processes of a host.
    pub zombies: u8,
}

/// A defect that can be planted. The number is the line of the list of what goes wrong in systems like this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// L01: `Pending` is written whatever stands there.
    PhaseReset,
    /// L02: the agent writes without a compare.
    BlindAgentWrite,
    /// L02: the executor writes without a compare.
    BlindExecutorWrite,
    /// L03, L17: an executor that meets a conflict gives up and stays.
    ConflictHangs,
    /// L05, L18: an executor that is gone is not noticed once it had claimed.
    LossIgnored,
    /// L06: an executor that hangs is not noticed.
    HangIgnored,
    /// L11: success is written before the commit.
    EarlySuccess,
    /// L14: a lost answer of a launch leads to another launch.
    LaunchTwice,
    /// L22: the local snapshot is removed before the commit was verified.
    EarlyRemoval,
    /// L23: what an executor leaves is removed while it still runs.
    EarlyCleaning,
    /// L24: a deletion waits for a source that is gone.
    DeletionNeedsSource,
    /// L25: the finalizer is taken off before the volume is gone.
    EarlyFinalizer,
    /// L26: a restored volume is published before it is complete.
    EarlyPublish,
    /// L2b: a deletion removes the volume under a running executor.
    DeletionIgnoresExecutor,
    /// L34: a successor does not look for its predecessor's commit.
    NoAdoption,
    /// L34: a deletion forgets what is in the repository.
    NoForget,
    /// An observation that failed is taken for an absence.
    UnknownIsAbsent,
    /// A loss is not written before the successor is launched.
    NoFence,
    /// L16: the agent does effects on what it has kept of an earlier read.
    EffectsOnOldView,
    /// The agent fails an attempt although its executor lives.
    GiveUpTooEarly,
    /// A claim is taken over from a holder that was not declared lost.
    ClaimSteals,
    /// L38: what was committed is not read back.
    NoReadBack,
    /// A retry is begun over an attempt that runs.
    RetryOverRunning,
    /// An attempt that failed reports a commit.
    FailureReports,
    /// The local snapshot of a failed attempt is removed: a retry could not copy the same moment.
    FailureRemoves,
}

const ORDINARY: Faults = Faults {
    agent_crashes: 1,
    executor_crashes: 1,
    hangs: 1,
    wakes: 1,
    missed_renewals: 1,
    lost_answers: 1,
    unseen: 0,
    broken_effects: 0,
    broken_copies: 1,
    deletions: 1,
    source_deletions: 0,
    storage_changes: 0,
    zombies: 0,
};

/// No faults, but what users may do.
const CALM: Faults = Faults {
    agent_crashes: 0,
    executor_crashes: 0,
    hangs: 0,
    wakes: 0,
    missed_renewals: 0,
    lost_answers: 0,
    unseen: 0,
    broken_effects: 0,
    broken_copies: 0,
    deletions: 1,
    source_deletions: 0,
    storage_changes: 0,
    zombies: 0,
};

impl Settings {
    /// The world that all others are variants of: one snapshot, two executors and two agent incarnations and two attempts.
    pub fn ordinary() -> Settings {
        Settings {
            name: "snapshot",
            kind: Kind::Snapshot,
            agents: 1,
            backoff_limit: 2,
            keep_local: false,
            attempts: 2,
            faults: ORDINARY,
            planted: None,
            without: None,
            limit: 12_000_000,
        }
    }

    /// A world small enough to be searched again for each planted defect.
    pub fn small(kind: Kind) -> Settings {
        let faults = Faults { agent_crashes: 1, executor_crashes: 1, lost_answers: 1, ..CALM };
        Settings { name: "small", kind, faults, ..Settings::ordinary() }
    }

    /// Every world that `make prove` searches. None of them may break a law.
    pub fn all() -> Vec<Settings> {
        let ordinary = Settings::ordinary();
        let environment = Faults {
            agent_crashes: 1,
            executor_crashes: 1,
            unseen: 1,
            broken_effects: 1,
            source_deletions: 1,
            storage_changes: 2,
            ..CALM
        };
        vec![
            ordinary.clone(),
            Settings { name: "snapshot, environment", faults: environment, keep_local: true, ..ordinary.clone() },
            Settings {
                name: "snapshot, zombies",
                faults: Faults { zombies: 1, hangs: 1, missed_renewals: 1, lost_answers: 1, deletions: 0, ..CALM },
                ..ordinary.clone()
            },
            Settings {
                name: "restore",
                kind: Kind::Restore,
                faults: Faults { unseen: 1, broken_effects: 1, ..ORDINARY },
                ..ordinary
            },
        ]
    }

    /// Two agents over one node: the owner's lock is broken, and the check has to see it.
    pub fn two_owners() -> Settings {
        Settings { name: "two owners", agents: 2, faults: CALM, ..Settings::ordinary() }
    }
}
