//! The whole table of observations: every field of an observation with every value that a decision could tell apart.

use lvault_core::{
    Attempt, Bytes, Claim, Epoch, Executor, Holder, Intent, Job, Launch, Lease, Life, Local, Observed, Online, Record,
    Repository, Seen, Source, State, Storage, Trouble, Volume,
};

/// How many executors may be lost in these observations.
pub(crate) const LIMIT: u32 = 3;
/// The size asked for.
pub(crate) const ASKED: Bytes = Bytes(100);
/// A size that is too small.
pub(crate) const SMALLER: Bytes = Bytes(50);

/// Sets a field of an observation to one of its values.
pub(crate) type Setter = Box<dyn Fn(&mut Observed)>;

fn setter(set: impl Fn(&mut Observed) + 'static) -> Setter {
    Box::new(set)
}

/// One field of an observation: its name, and how each of its values is set.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<(&'static str, Setter)>,
}

/// The four things a LogicalVolume can be for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Volume,
    LocalSnapshot,
    OnlineSnapshot,
    Restore,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Volume, Kind::LocalSnapshot, Kind::OnlineSnapshot, Kind::Restore];

macro_rules! field {
    ($name:literal, $($label:literal => $set:expr),+ $(,)?) => {
        Field { name: $name, values: vec![$(($label, setter($set))),+] }
    };
}

/// An observation of this kind in which nothing is there yet.
pub(crate) fn nothing(kind: Kind) -> Observed {
    let local = Local { size: ASKED, published: None, serve: true };
    let online = Online {
        attempt: Attempt::FIRST,
        backoff_limit: LIMIT,
        keep_local: false,
        record: None,
        overdue: false,
        storage: Seen::Absent,
        repository: Repository::Nothing,
    };
    let intent = match kind {
        Kind::Volume => Intent::Volume(local),
        Kind::LocalSnapshot => Intent::LocalSnapshot(local, Seen::Absent),
        Kind::OnlineSnapshot => Intent::OnlineSnapshot(online, Seen::Absent),
        Kind::Restore => Intent::Restore(online, local),
    };
    Observed {
        intent,
        deleting: false,
        finalizer: false,
        volume: Seen::Absent,
        mount: Seen::Absent,
        executor: Seen::Absent,
        lease: Seen::Absent,
        trouble: None,
    }
}

pub(crate) fn online(observed: &mut Observed) -> Option<&mut Online> {
    match &mut observed.intent {
        Intent::OnlineSnapshot(online, _) | Intent::Restore(online, _) => Some(online),
        Intent::Volume(_) | Intent::LocalSnapshot(..) => None,
    }
}

pub(crate) fn local(observed: &mut Observed) -> Option<&mut Local> {
    match &mut observed.intent {
        Intent::Volume(local) | Intent::LocalSnapshot(local, _) | Intent::Restore(_, local) => Some(local),
        Intent::OnlineSnapshot(..) => None,
    }
}

pub(crate) fn source(observed: &mut Observed) -> Option<&mut Seen<Source>> {
    match &mut observed.intent {
        Intent::LocalSnapshot(_, source) | Intent::OnlineSnapshot(_, source) => Some(source),
        Intent::Volume(_) | Intent::Restore(..) => None,
    }
}

/// Every field that matters for this kind, in the order in which a person would look at them.
pub(crate) fn fields(kind: Kind) -> Vec<Field> {
    let mut fields = vec![
        field!("deleting", "no" => |o| o.deleting = false, "yes" => |o| o.deleting = true),
        field!("finalizer", "there" => |o| o.finalizer = true, "missing" => |o| o.finalizer = false),
    ];
    let is_online = matches!(kind, Kind::OnlineSnapshot | Kind::Restore);
    if is_online {
        fields.push(records());
        fields.push(field!("attempt asked for",
            "the same" => |o| set_online(o, |online| online.attempt = Attempt::FIRST),
            "higher" => |o| set_online(o, |online| online.attempt = Attempt::FIRST.next())));
        fields.extend(executors());
    }
    fields.push(field!("trouble",
        "none" => |o| o.trouble = None,
        "invalid" => |o| o.trouble = Some(Trouble::Invalid),
        "mount" => |o| o.trouble = Some(Trouble::Mount),
        "launch" => |o| o.trouble = Some(Trouble::Launch)));
    fields.push(field!("volume",
        "unknown" => |o| o.volume = Seen::Unknown,
        "absent" => |o| o.volume = Seen::Absent,
        "too small" => |o| o.volume = Seen::Present(Volume { size: SMALLER }),
        "there" => |o| o.volume = Seen::Present(Volume { size: ASKED })));
    if matches!(kind, Kind::LocalSnapshot | Kind::OnlineSnapshot) {
        fields.push(sources());
    }
    fields.push(field!("mount",
        "unknown" => |o| o.mount = Seen::Unknown,
        "absent" => |o| o.mount = Seen::Absent,
        "there" => |o| o.mount = Seen::Present(())));
    if is_online {
        fields.push(storages());
        fields.push(field!("overdue",
            "no" => |o| set_online(o, |online| online.overdue = false),
            "yes" => |o| set_online(o, |online| online.overdue = true)));
    }
    if matches!(kind, Kind::OnlineSnapshot) {
        fields.push(field!("repository",
            "nothing" => |o| set_online(o, |online| online.repository = Repository::Nothing),
            "holds" => |o| set_online(o, |online| online.repository = Repository::Holds),
            "holds, later" => |o| set_online(o, |online| online.repository = Repository::HoldsTryLater)));
        fields.push(field!("local snapshot",
            "not kept" => |o| set_online(o, |online| online.keep_local = false),
            "kept" => |o| set_online(o, |online| online.keep_local = true)));
    } else {
        fields.push(field!("published",
            "no" => |o| set_local(o, |local| local.published = None),
            "smaller" => |o| set_local(o, |local| local.published = Some(SMALLER)),
            "yes" => |o| set_local(o, |local| local.published = Some(ASKED))));
        fields.push(field!("served",
            "yes" => |o| set_local(o, |local| local.serve = true),
            "no" => |o| set_local(o, |local| local.serve = false)));
    }
    fields
}

fn records() -> Field {
    let state = |state: State, lost: u32| Some(Record { attempt: Attempt::FIRST, lost, state });
    let running = |launch: u32| {
        let launch = Launch::new(launch).expect("launches count from 1");
        State::Running(Claim { holder: Holder("executor".to_owned()), epoch: Epoch::FIRST, launch })
    };
    let values: [(&'static str, Option<Record>); 9] = [
        ("none", None),
        ("Pending", state(State::Pending, 0)),
        ("Pending, 1 lost", state(State::Pending, 1)),
        ("Pending, limit lost", state(State::Pending, LIMIT)),
        ("Running", state(running(1), 0)),
        ("Running, its holder lost", state(running(1), 1)),
        ("Running, limit lost", state(running(LIMIT), LIMIT)),
        ("Succeeded", state(State::Succeeded, 0)),
        ("Failed", state(State::Failed, 1)),
    ];
    let set = |record: Option<Record>| setter(move |o| set_online(o, |online| online.record = record.clone()));
    Field { name: "record", values: values.into_iter().map(|(label, record)| (label, set(record))).collect() }
}

/// The job that is due for what the record says; with no record, the first.
fn due(observed: &mut Observed) -> Job {
    let record = online(observed).and_then(|online| online.record.clone());
    let (attempt, launch) = record.map_or((Attempt::FIRST, Launch::FIRST), |r| (r.attempt, r.launch()));
    Job::Copy { attempt, launch }
}

fn executors() -> [Field; 2] {
    let other = Job::Copy { attempt: Attempt::FIRST.next().next(), launch: Launch::FIRST };
    fn is(o: &mut Observed, job: Job, life: Life) {
        o.executor = Seen::Present(Executor { job, life });
    }
    let executor = field!("executor",
        "unknown" => |o| o.executor = Seen::Unknown,
        "absent" => |o| o.executor = Seen::Absent,
        "due, alive" => |o| { let job = due(o); is(o, job, Life::Alive) },
        "due, ended" => |o| { let job = due(o); is(o, job, Life::Ended) },
        "other, alive" => move |o| is(o, other, Life::Alive),
        "other, ended" => move |o| is(o, other, Life::Ended),
        "forget, alive" => |o| is(o, Job::Forget, Life::Alive),
        "forget, ended" => |o| is(o, Job::Forget, Life::Ended),
    );
    let lease = field!("lease",
        "unknown" => |o| o.lease = Seen::Unknown,
        "absent" => |o| o.lease = Seen::Absent,
        "fresh" => |o| o.lease = Seen::Present(Lease::Fresh),
        "expired" => |o| o.lease = Seen::Present(Lease::Expired));
    [executor, lease]
}

fn sources() -> Field {
    fn set(o: &mut Observed, to: Seen<Source>) {
        if let Some(source) = source(o) {
            *source = to;
        }
    }
    field!("source",
        "unknown" => |o| set(o, Seen::Unknown),
        "absent" => |o| set(o, Seen::Absent),
        "never" => |o| set(o, Seen::Present(Source::Never)),
        "not yet" => |o| set(o, Seen::Present(Source::NotYet)),
        "ready" => |o| set(o, Seen::Present(Source::Ready)))
}

fn storages() -> Field {
    field!("storage",
        "unknown" => |o| set_online(o, |online| online.storage = Seen::Unknown),
        "absent" => |o| set_online(o, |online| online.storage = Seen::Absent),
        "not ready" => |o| set_online(o, |online| online.storage = Seen::Present(Storage::NotReady)),
        "ready" => |o| set_online(o, |online| online.storage = Seen::Present(Storage::Ready)))
}

fn set_online(observed: &mut Observed, set: impl FnOnce(&mut Online)) {
    if let Some(online) = online(observed) {
        set(online);
    }
}

fn set_local(observed: &mut Observed, set: impl FnOnce(&mut Local)) {
    if let Some(local) = local(observed) {
        set(local);
    }
}

/// Calls `visit` with every observation of this kind.
pub(crate) fn every(kind: Kind, mut visit: impl FnMut(&Observed)) -> usize {
    fn go(fields: &[Field], observed: &Observed, visit: &mut impl FnMut(&Observed)) -> usize {
        let Some((field, rest)) = fields.split_first() else {
            visit(observed);
            return 1;
        };
        field
            .values
            .iter()
            .map(|(_, set)| {
                let mut observed = observed.clone();
                set(&mut observed);
                go(rest, &observed, visit)
            })
            .sum()
    }
    go(&fields(kind), &nothing(kind), &mut visit)
}
