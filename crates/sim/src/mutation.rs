//! Defects planted around the real code, to see the laws and the stories find them: an engine, a repository, a launcher or an API
//! that does not do what it says. Those of the rules themselves are planted into the model.

use crate::model::laws::is_of;
use crate::run::{Disturbance, tell, wrong};
use crate::scenario;
use crate::world::points::{Fault, Plan};

/// A planted defect of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// L08: an unreadable file is left out, and the copy succeeds.
    UnreadableIsSkipped,
    /// L09: a restore fills another volume.
    FillsAnother,
    /// L10: success is reported with an empty id.
    EmptyId,
    /// L14: a launcher that forgets what it has launched.
    LauncherForgets,
    /// L18: the lock of an executor that ended is still seen as held.
    LockOutlives,
    /// L20: nothing is mounted, and success is answered.
    NothingMounted,
    /// L22: what is removed takes its source along.
    RemovesSource,
    /// L23: what was unmounted is mounted still.
    UnmountDoesNothing,
    /// L34: the key of an attempt is not looked for.
    NoLook,
    /// L38: a restore is reported with its last part missing.
    RestoreIncomplete,
    /// L38: a commit is not read back.
    NotReadBack,
    /// I3: a commit holds something else.
    CommitsGarbage,
    /// I5: a removal from the repository is reported and not made.
    ForgetsNothing,
    /// I5: a removal of a volume is answered and not made.
    RemovesNothing,
    /// I6: cutting a snapshot changes its source.
    CutChangesSource,
    /// I9: a removal takes all snapshots of the repository.
    ForgetsAll,
    /// L08: the API answers the finalizer's write as done, and it is not.
    FinalizerSwallowed,
    /// L01: the agent's writes put the phase back.
    PhaseBack,
    /// I4: a failure reports a snapshot.
    FailureReports,
}

/// A defect, and where it has to show.
#[derive(Clone, Copy)]
pub struct Mutation {
    /// What is planted.
    pub planted: Planted,
    /// The line or invariant it stands for.
    pub line: &'static str,
    /// In words.
    pub words: &'static str,
    /// The story in which it shows.
    pub story: &'static str,
    /// It shows only when something breaks at the same time.
    pub disturbed: bool,
}

/// Every planted defect.
pub fn all() -> Vec<Mutation> {
    let plain = |planted, line, words, story| Mutation { planted, line, words, story, disturbed: false };
    vec![
        plain(Planted::UnreadableIsSkipped, "L08", "an unreadable file is left out", "failed backup, then a retry"),
        plain(Planted::FillsAnother, "L09", "a restore fills another volume", "restore"),
        plain(Planted::EmptyId, "L10", "a success reports an empty id", "backup"),
        plain(Planted::LauncherForgets, "L14", "a launch is forgotten and made again", "backup"),
        plain(Planted::LockOutlives, "L18", "an executor that ended is taken for alive", "backup"),
        plain(Planted::NothingMounted, "L20", "an empty folder is taken for a mount", "backup"),
        plain(Planted::RemovesSource, "L22", "a removal takes the source along", "backup"),
        plain(Planted::UnmountDoesNothing, "L23", "a mount stays", "backup"),
        Mutation { disturbed: true, ..plain(Planted::NoLook, "L34", "a commit is made again after a crash", "backup") },
        plain(Planted::RestoreIncomplete, "L38 I8", "a restore ends with a part missing", "restore"),
        plain(Planted::NotReadBack, "L38", "a commit is not read back", "backup"),
        plain(Planted::CommitsGarbage, "I3", "a commit holds something else", "backup"),
        plain(Planted::ForgetsNothing, "I5", "a removal from the repository is not made", "deleted when Succeeded"),
        plain(Planted::RemovesNothing, "I5 I7", "a volume is not removed", "backup"),
        plain(Planted::CutChangesSource, "I6", "a cut changes the source", "backup"),
        plain(
            Planted::ForgetsAll,
            "I9",
            "a removal takes other snapshots along",
            "two snapshots of one volume, one deleted",
        ),
        plain(Planted::FinalizerSwallowed, "L08 L12", "a write is answered and not made", "backup"),
        plain(Planted::PhaseBack, "L01 I1", "the agent's writes put the phase back", "failed backup, then a retry"),
        plain(Planted::FailureReports, "I4", "a failure reports a snapshot", "failed backup, then a retry"),
    ]
}

/// Runs the story with the defect, and answers the law that caught it; none, when it survived. `without` is an invariant that is
/// not looked at.
///
/// # Errors
/// When the story cannot be told even without the defect.
pub fn catch(mutation: &Mutation, without: Option<u8>) -> Result<Option<String>, String> {
    let Some(story) = scenario::all().into_iter().find(|story| story.name == mutation.story) else {
        return Err(format!("{}: there is no story {:?}", mutation.words, mutation.story));
    };
    let first = tell(&story, Disturbance::default());
    let Ok(end) = first.end else { return Err(format!("{}: the story fails without it", mutation.words)) };
    let caught = |plan: Plan| {
        let planted = Some(mutation.planted);
        let law = wrong(&tell(&story, Disturbance { plan, planted, without, ..Disturbance::default() }), &end)?;
        without.is_none_or(|off| !is_of(&law, off)).then_some(law)
    };
    if !mutation.disturbed {
        return Ok(caught(Plan::default()));
    }
    let at = |point| Plan { at: [(point, Fault::CrashAfter)].into(), chance: None };
    Ok((0..first.points).find_map(|point| caught(at(point))))
}
