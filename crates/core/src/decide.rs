//! What to do next for one LogicalVolume, from what was seen of it.
//!
//! [`decide`] is total: every observation has an answer. It holds no state, so it does not matter who asks, how
//! often, or what crashed before. It never takes anything away because of something that could not be seen.

mod deletion;
mod executor;
mod restore;
mod snapshot;
mod volume;

use crate::{Action, Effect, Intent, Observed};

/// The next thing to do for what was observed.
pub fn decide(observed: &Observed) -> Action {
    if observed.deleting {
        return deletion::decide(observed);
    }
    if !observed.finalizer {
        return Action::Do(Effect::AddFinalizer);
    }
    match &observed.intent {
        Intent::Volume(local) => volume::decide(observed, local, volume::Origin::Empty),
        Intent::LocalSnapshot(local, source) => volume::decide(observed, local, volume::Origin::Source(*source)),
        Intent::OnlineSnapshot(online, source) => snapshot::decide(observed, online, *source),
        Intent::Restore(online, local) => restore::decide(observed, online, local),
    }
}
