//! Everything there is at one moment.

use lvault_core::{Attempt, Effect, Held, Job, Record, Trouble};

use super::settings::{Faults, Settings};

/// Everything there is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The object in the API, until its finalizer is dropped after a deletion.
    pub object: Option<Object>,
    /// The node.
    pub node: Node,
    /// What is visible in the repository of this object.
    pub commits: Vec<Commit>,
    /// The agents, by index.
    pub agents: Vec<Agent>,
    /// Executors that can still do something, in order of their names.
    pub executors: Vec<Process>,
    /// How many executors were ever started: names the next one.
    pub started: u8,
    /// The source volume is there.
    pub source: bool,
    /// The storage is there.
    pub storage: bool,
    /// What may still happen.
    pub faults: Faults,
}

/// The object, as far as anything depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// `spec.*.attempt`.
    pub wanted: Attempt,
    /// It has a deletion time.
    pub deleting: bool,
    /// Our finalizer is on it.
    pub finalizer: bool,
    /// What the status says.
    pub record: Option<Record>,
    /// `status.*.executor.name`: it stays when the attempt has ended.
    pub holder: Option<u8>,
    /// `status.*.snapshotID`.
    pub reported: Option<u8>,
    /// Condition `RepositorySnapshotRemoved`.
    pub removed: bool,
    /// `status.volumeID`.
    pub published: bool,
    /// The attempt has waited longer than it may.
    pub overdue: bool,
}

/// The node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// The volume of the object, and what is in it.
    pub volume: Option<Content>,
    /// It is mounted.
    pub mounted: bool,
    /// The folder of the newest executor.
    pub folder: Option<Job>,
    /// The lease of the newest executor.
    pub lease: Option<Job>,
}

/// What is in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nothing yet.
    Empty,
    /// Some of what is to be there.
    Partial,
    /// All of it.
    Whole,
}

/// A snapshot in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Of this attempt.
    pub attempt: Attempt,
    /// By the executor of this name.
    pub by: u8,
    /// It was read back.
    pub verified: bool,
}

/// What an actor has read of the object, and whether somebody has written since.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The object as it was.
    pub object: Object,
    /// A compare-and-swap on it fails.
    pub old: bool,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Where it stands in its pass.
    pub at: AgentAt,
    /// The failure that it remembers, and what it was about: the attempt, and how many executors were lost.
    pub trouble: Option<(Trouble, Option<(Attempt, u32)>)>,
    /// What a planted defect keeps of the object; the real agent keeps nothing.
    pub cache: Option<Object>,
}

/// Where an agent stands in its pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AgentAt {
    /// Between passes.
    Idle,
    /// It has read the object.
    Read(View),
    /// It has looked at the node and decided on an effect.
    Decided(View, Effect),
    /// It has removed the lease of an ended executor; the folder is next.
    LeaseRemoved,
    /// It has made the folder of an executor; the process is next.
    FolderMade(Job),
}

/// An executor's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// No two have the same.
    pub name: u8,
    /// What it was launched for.
    pub job: Job,
    /// It holds its lock. One that does not and still runs is a zombie.
    pub locked: bool,
    /// It stands still.
    pub hung: bool,
    /// Where it stands.
    pub at: ExecutorAt,
    /// Its claim.
    pub held: Option<Held>,
    /// The volume was mounted when it was launched.
    pub mounted: bool,
}

/// Where an executor stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExecutorAt {
    /// About to read the object for its claim.
    ReadForClaim,
    /// About to write its claim.
    WriteClaim(View),
    /// About to look for a commit of its attempt.
    Look,
    /// About to copy.
    Copy,
    /// About to ask whether the claim is still its own.
    Ask,
    /// About to look once more, and to commit.
    Commit,
    /// About to read the commit back.
    ReadBack(u8),
    /// Filling a volume.
    Fill,
    /// About to read the object for its result: the commit, or a failure.
    ReadForResult(Outcome),
    /// About to write its result.
    WriteResult(Outcome, View),
    /// About to remove the object's snapshots from the repository.
    Remove,
    /// About to read the object, to note that they are removed.
    ReadForNote,
    /// About to write that.
    WriteNote(View),
}

/// How an executor's work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// This commit, or a filled volume.
    Done(Option<u8>),
    /// It cannot be done.
    Failed,
}

impl World {
    /// The object has just been created.
    pub fn new(settings: &Settings) -> World {
        World {
            object: Some(Object {
                wanted: Attempt::FIRST,
                deleting: false,
                finalizer: false,
                record: None,
                holder: None,
                reported: None,
                removed: false,
                published: false,
                overdue: false,
            }),
            node: Node::default(),
            commits: Vec::new(),
            agents: vec![Agent { at: AgentAt::Idle, trouble: None, cache: None }; settings.agents],
            executors: Vec::new(),
            started: 0,
            source: true,
            storage: true,
            faults: settings.faults,
        }
    }

    /// Writes the object: whatever anybody has read of it is old from now on.
    pub fn write(&mut self, change: impl FnOnce(&mut Object)) {
        let Some(object) = &mut self.object else { return };
        let before = object.clone();
        change(object);
        if *object == before {
            return;
        }
        for agent in &mut self.agents {
            match &mut agent.at {
                AgentAt::Read(view) | AgentAt::Decided(view, _) => view.old = true,
                AgentAt::Idle | AgentAt::LeaseRemoved | AgentAt::FolderMade(..) => {}
            }
        }
        for process in &mut self.executors {
            match &mut process.at {
                ExecutorAt::WriteClaim(view) | ExecutorAt::WriteResult(_, view) | ExecutorAt::WriteNote(view) => {
                    view.old = true;
                }
                ExecutorAt::ReadForClaim
                | ExecutorAt::Look
                | ExecutorAt::Copy
                | ExecutorAt::Ask
                | ExecutorAt::Commit
                | ExecutorAt::ReadBack(_)
                | ExecutorAt::Fill
                | ExecutorAt::ReadForResult(_)
                | ExecutorAt::Remove
                | ExecutorAt::ReadForNote => {}
            }
        }
    }

    /// The process that holds the lock of the newest executor's folder.
    pub fn holder(&self) -> Option<&Process> {
        self.executors.iter().find(|process| process.locked && Some(process.job) == self.node.folder)
    }

    /// A process by its name.
    pub fn process(&mut self, name: u8) -> Option<&mut Process> {
        self.executors.iter_mut().find(|process| process.name == name)
    }

    /// The process is gone.
    pub fn end(&mut self, name: u8) {
        self.executors.retain(|process| process.name != name);
    }

    /// A fresh view of the object.
    pub fn view(&self) -> Option<View> {
        self.object.clone().map(|object| View { object, old: false })
    }
}
