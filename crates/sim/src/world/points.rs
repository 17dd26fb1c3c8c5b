//! Points: every API call and every effect, numbered in the order in which they happen, and the faults that meet them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::clock;
use super::random::Random;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The actor ends before anything was done.
    CrashBefore,
    /// It is done, and the actor ends before it hears of it.
    CrashAfter,
    /// It is not done, and an error is returned.
    Refused,
    /// It is done, and an error is returned.
    DoneButError,
    /// It is done, and no answer comes: a time-out.
    AnswerLost,
    /// A write is answered as a conflict although it is none. For anything else as [`Fault::Refused`].
    Conflict,
    /// The actor stops for two minutes before it goes on. Only executors; for others as [`Fault::Refused`].
    Stops,
}

/// Every fault of the sweep.
pub const SWEPT: [Fault; 5] =
    [Fault::CrashBefore, Fault::CrashAfter, Fault::Refused, Fault::DoneButError, Fault::AnswerLost];

/// Every fault of random histories.
pub const ALL: [Fault; 7] = [
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Refused,
    Fault::DoneButError,
    Fault::AnswerLost,
    Fault::Conflict,
    Fault::Stops,
];

/// Which points meet which faults.
#[derive(Debug, Default)]
pub struct Plan {
    /// These points meet these faults.
    pub at: BTreeMap<u64, Fault>,
    /// So often in a thousand a point meets a fault, until faults are stopped.
    pub chance: Option<(Random, u64)>,
}

/// The count of points, what they met, and the log.
#[derive(Debug, Default)]
pub struct Points {
    /// How many points there were.
    pub count: u64,
    /// Which faults were met.
    pub met: Vec<(u64, Fault)>,
    /// What faults are to be met.
    pub plan: Plan,
    /// What happened, in order.
    pub log: Vec<String>,
}

impl Points {
    /// Numbers a point, and says what happens there.
    pub fn pass(&mut self, actor: &str, what: &str) -> Option<Fault> {
        let number = self.count;
        self.count += 1;
        let mut fault = self.plan.at.get(&number).copied();
        if fault.is_none()
            && let Some((random, permille)) = &mut self.plan.chance
            && random.permille(*permille)
        {
            fault = random.pick(&ALL).copied();
        }
        if let Some(fault) = fault {
            self.met.push((number, fault));
        }
        let met = fault.map(|fault| format!(" !! {fault:?}")).unwrap_or_default();
        self.note(&format!("#{number} {actor}: {what}{met}"));
        fault
    }

    /// Writes a line into the log, with the time.
    pub fn note(&mut self, what: &str) {
        let at = clock::elapsed();
        self.log.push(format!("{:6}.{:03} {what}", at.as_secs(), at.subsec_millis()));
    }
}

/// One life of an actor: of an agent, an executor, a controller. When it ends, nothing that it began goes on.
#[derive(Debug)]
pub struct Life {
    /// Whose, and which one.
    pub name: String,
    dead: AtomicBool,
    frozen: AtomicBool,
    changed: Notify,
    died: Notify,
}

impl Life {
    /// A new one.
    pub fn new(name: String) -> Life {
        Life {
            name,
            dead: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            changed: Notify::new(),
            died: Notify::new(),
        }
    }

    /// Ends it.
    pub fn end(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Stops it, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Whether it stands still.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Returns when it has ended. For one waiter.
    pub async fn ended(&self) {
        while !self.is_over() {
            self.died.notified().await;
        }
    }

    /// Returns while it lives and moves; never, once it has ended.
    pub async fn moving(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_over() {
                std::future::pending::<()>().await;
            }
            if !self.is_frozen() {
                return;
            }
            changed.await;
        }
    }
}
