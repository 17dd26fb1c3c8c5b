//! The life of one attempt, and every transition there is.
//!
//! A [`Record`] is what the status of an online operation says. [`next`] is the transition table: whoever wants to
//! write a status computes the record it would leave, and writes it with a compare-and-swap on the record it came
//! from. What `next` refuses is never written.

use std::fmt;

use crate::{Attempt, Epoch, Launch};

/// The name of one executor process: no two processes ever have the same, also not two of the same launch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub String);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who holds an attempt. Every write of an executor names its claim; a write by an older claim is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The executor that holds it.
    pub holder: Holder,
    /// How often the attempt has been claimed, this time included.
    pub epoch: Epoch,
    /// Which launch of the attempt made the claim.
    pub launch: Launch,
}

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Asked for; no executor has claimed it.
    Pending,
    /// Claimed by an executor.
    Running(Claim),
    /// Committed, read back, reported. Never changes again.
    Succeeded,
    /// Ended without a usable result. Only a higher attempt follows.
    Failed,
}

/// What the status of an online operation says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The attempt this is about.
    pub attempt: Attempt,
    /// How many executors of this attempt the agent has seen end without a result.
    pub lost: u32,
    /// Where the attempt stands.
    pub state: State,
}

impl Record {
    /// The launch that may act on this attempt: the one after all that were lost.
    pub fn launch(&self) -> Launch {
        Launch::new(self.lost.saturating_add(1)).unwrap_or(Launch::FIRST)
    }

    /// Whether nothing but a new attempt can follow.
    pub fn is_terminal(&self) -> bool {
        match self.state {
            State::Pending | State::Running(_) => false,
            State::Succeeded | State::Failed => true,
        }
    }
}

/// A change of a record, with who makes it and all that makes it legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The agent begins an attempt: none -> Pending, or Failed -> Pending of a higher attempt.
    Begin {
        /// The attempt that the user asks for.
        attempt: Attempt,
    },
    /// The agent has seen that an executor ended (or has ended it) without a result. This fences it: from here on
    /// nothing that this launch writes is legal.
    RecordLoss {
        /// The launch that was lost.
        launch: Launch,
    },
    /// The agent gives up before any executor has claimed: Pending -> Failed.
    GiveUp,
    /// The agent gives up because too many executors were lost: Pending or Running -> Failed.
    ExceedBackoffLimit {
        /// How many may be lost.
        limit: u32,
    },
    /// An executor takes the attempt: Pending -> Running with epoch 1, or over from a lost one with the next epoch.
    Claim {
        /// Who claims.
        holder: Holder,
        /// Which attempt it was launched for.
        attempt: Attempt,
        /// Which launch it is.
        launch: Launch,
    },
    /// The holder reports progress: Running -> Running.
    Report(Held),
    /// The holder has committed and read back: Running -> Succeeded.
    Succeed(Held),
    /// The holder met a final error: Running -> Failed.
    Fail(Held),
}

/// What an executor names in every write: the attempt it was launched for and the claim it made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The attempt it was launched for.
    pub attempt: Attempt,
    /// The claim it made.
    pub claim: Claim,
}

/// Why a transition is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no attempt yet.
    #[error("no attempt has begun")]
    NotBegun,
    /// There is an attempt already, and it is not a failed one of a lower number.
    #[error("an attempt stands that is not a failed one of a lower number")]
    AlreadyBegun,
    /// The attempt has ended.
    #[error("the attempt has ended")]
    Ended,
    /// An executor holds the attempt.
    #[error("an executor holds the attempt")]
    Held,
    /// No executor holds the attempt.
    #[error("no executor holds the attempt")]
    NotHeld,
    /// The writer was launched for another attempt.
    #[error("the attempt is another one")]
    OtherAttempt,
    /// The writer's launch was declared lost, or is not the one that is due.
    #[error("this launch was declared lost, or is not the one that is due")]
    OtherLaunch,
    /// Somebody else holds the claim.
    #[error("the claim is another executor's")]
    OtherClaim,
    /// Fewer executors were lost than the limit allows.
    #[error("fewer executors were lost than the limit allows")]
    BelowLimit,
}

/// The record that `transition` leaves, or why it is not legal. This is the whole transition table.
pub fn next(current: Option<&Record>, transition: &Transition) -> Result<Record, Refused> {
    match transition {
        Transition::Begin { attempt } => begin(current, *attempt),
        Transition::RecordLoss { launch } => record_loss(current, *launch),
        Transition::GiveUp => {
            let record = unclaimed(current)?;
            Ok(Record { state: State::Failed, ..record.clone() })
        }
        Transition::ExceedBackoffLimit { limit } => {
            let record = open(current)?;
            if record.lost < *limit {
                return Err(Refused::BelowLimit);
            }
            Ok(Record { state: State::Failed, ..record.clone() })
        }
        Transition::Claim { holder, attempt, launch } => claim(current, holder, *attempt, *launch),
        Transition::Report(held) => Ok(held_by(current, held)?.clone()),
        Transition::Succeed(held) => Ok(Record { state: State::Succeeded, ..held_by(current, held)?.clone() }),
        Transition::Fail(held) => Ok(Record { state: State::Failed, ..held_by(current, held)?.clone() }),
    }
}

fn begin(current: Option<&Record>, attempt: Attempt) -> Result<Record, Refused> {
    let begun = Record { attempt, lost: 0, state: State::Pending };
    match current {
        None => Ok(begun),
        Some(Record { attempt: old, state: State::Failed, .. }) if attempt > *old => Ok(begun),
        Some(_) => Err(Refused::AlreadyBegun),
    }
}

fn record_loss(current: Option<&Record>, launch: Launch) -> Result<Record, Refused> {
    let record = open(current)?;
    if record.launch() != launch {
        return Err(Refused::OtherLaunch);
    }
    Ok(Record { lost: record.lost.saturating_add(1), ..record.clone() })
}

fn claim(current: Option<&Record>, holder: &Holder, attempt: Attempt, launch: Launch) -> Result<Record, Refused> {
    let record = open(current)?;
    if record.attempt != attempt {
        return Err(Refused::OtherAttempt);
    }
    if record.launch() != launch {
        return Err(Refused::OtherLaunch);
    }
    let epoch = match &record.state {
        State::Pending => Epoch::FIRST,
        // A holder that was not declared lost lives: there is nothing to take over.
        State::Running(claim) if claim.launch >= launch => return Err(Refused::Held),
        State::Running(claim) => claim.epoch.next(),
        State::Succeeded | State::Failed => return Err(Refused::Ended),
    };
    let state = State::Running(Claim { holder: holder.clone(), epoch, launch });
    Ok(Record { state, ..record.clone() })
}

/// The record, if it stands and has not ended.
fn open(current: Option<&Record>) -> Result<&Record, Refused> {
    let record = current.ok_or(Refused::NotBegun)?;
    if record.is_terminal() { Err(Refused::Ended) } else { Ok(record) }
}

/// The record, if nobody has claimed it.
fn unclaimed(current: Option<&Record>) -> Result<&Record, Refused> {
    let record = open(current)?;
    match record.state {
        State::Pending => Ok(record),
        State::Running(_) => Err(Refused::Held),
        State::Succeeded | State::Failed => Err(Refused::Ended),
    }
}

/// The record, if this claim of this launch still holds it.
fn held_by<'a>(current: Option<&'a Record>, held: &Held) -> Result<&'a Record, Refused> {
    let record = open(current)?;
    if record.attempt != held.attempt {
        return Err(Refused::OtherAttempt);
    }
    match &record.state {
        State::Pending => Err(Refused::NotHeld),
        State::Running(claim) if *claim != held.claim => Err(Refused::OtherClaim),
        State::Running(claim) if record.launch() != claim.launch => Err(Refused::OtherLaunch),
        State::Running(_) => Ok(record),
        State::Succeeded | State::Failed => Err(Refused::Ended),
    }
}
