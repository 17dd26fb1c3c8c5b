//! Volumes that applications use: made once, grown when asked, published when they are there.

use crate::{Action, Effect, Local, Observed, Seen, Source, Trouble, Wait};

/// Where a volume's first content comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// It is empty at first.
    Empty,
    /// It is cut from another volume.
    Source(Seen<Source>),
    /// An executor has filled it.
    Restored,
}

pub(super) fn decide(observed: &Observed, local: &Local, origin: Origin) -> Action {
    let volume = match observed.volume {
        Seen::Unknown => return Action::Wait(Wait::VolumeUnknown),
        Seen::Absent => return make(observed, local, origin),
        Seen::Present(volume) => volume,
    };
    if volume.size < local.size && observed.trouble.is_none() {
        return Action::Do(Effect::GrowVolume);
    }
    match (local.serve, observed.mount) {
        (true, Seen::Unknown) => return Action::Wait(Wait::MountUnknown),
        (true, Seen::Absent) if observed.trouble == Some(Trouble::Mount) => {
            return Action::Wait(Wait::Trouble(Trouble::Mount));
        }
        (true, Seen::Absent) => return Action::Do(Effect::Mount),
        (true, Seen::Present(())) | (false, _) => {}
    }
    if local.published != Some(volume.size) {
        return Action::Do(Effect::Publish);
    }
    match observed.trouble {
        Some(trouble) => Action::Wait(Wait::Trouble(trouble)),
        None => Action::Settled,
    }
}

fn make(observed: &Observed, local: &Local, origin: Origin) -> Action {
    if local.published.is_some() {
        return Action::Wait(Wait::VolumeLost);
    }
    if let Some(trouble) = observed.trouble {
        return Action::Wait(Wait::Trouble(trouble));
    }
    match origin {
        Origin::Empty => Action::Do(Effect::CreateVolume),
        Origin::Restored => Action::Wait(Wait::VolumeLost),
        Origin::Source(Seen::Unknown) => Action::Wait(Wait::SourceUnknown),
        Origin::Source(Seen::Absent | Seen::Present(Source::Never)) => Action::Wait(Wait::SourceGone),
        Origin::Source(Seen::Present(Source::NotYet)) => Action::Wait(Wait::SourceNotReady),
        Origin::Source(Seen::Present(Source::Ready)) => Action::Do(Effect::CutSnapshot),
    }
}
