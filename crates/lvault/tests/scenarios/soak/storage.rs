//! The storage of a soak: a folder that fills up or cannot be written, or a bucket whose server answers badly or not at all.

use std::fmt;
use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lvault_faults::s3::{BUCKET, Mishap, Proxy, Request, S3Server};
use rustix::mount::{MountFlags, mount_remount};

use crate::buckets::add;
use crate::process::Dice;
use crate::repository::{Place, Repository};
use crate::storages::own_filesystem;
use crate::world::{World, is_root};

/// Storage `main`.
pub(super) enum Storage {
    Folder,
    Bucket(Box<Bucket>),
}

/// A bucket behind a proxy that lets things go wrong.
pub(super) struct Bucket {
    server: S3Server,
    proxy: Proxy,
    mishaps: Arc<AtomicUsize>,
}

/// What is wrong with it, and until when.
pub(super) struct Hurt {
    how: Harm,
    pub(super) until: Instant,
}

#[derive(Clone, Copy)]
enum Harm {
    ReadOnly,
    Full,
    Away,
    Overloaded,
    Unreliable,
}

impl Hurt {
    pub(super) fn what(&self) -> &'static str {
        match self.how {
            Harm::ReadOnly => "storage read-only",
            Harm::Full => "storage full",
            Harm::Away => "server away",
            Harm::Overloaded => "server overloaded",
            Harm::Unreliable => "server answers badly",
        }
    }
}

impl Storage {
    pub(super) fn folder(world: &World) -> Storage {
        if is_root() {
            own_filesystem(world, 1024);
        }
        world.storage("main");
        Storage::Folder
    }

    pub(super) fn bucket(world: &World) -> Storage {
        let server = S3Server::start(7);
        let proxy = Proxy::start(server.port);
        add(world, &proxy.endpoint(), &server.key).unwrap();
        Storage::Bucket(Box::new(Bucket { server, proxy, mishaps: Arc::default() }))
    }

    /// Puts it out of order for a while, where that can be done just now.
    pub(super) fn hurt(&self, world: &World, dice: &mut Dice) -> Option<Hurt> {
        let until = Instant::now() + Duration::from_millis(500 + dice.below(4000));
        let how = match self {
            Storage::Folder => hurt_folder(world, dice)?,
            Storage::Bucket(bucket) => {
                let Bucket { proxy, mishaps, .. } = bucket.as_ref();
                let (seed, count) = (dice.next(), Arc::clone(mishaps));
                let counted = move |mishap: Option<Mishap>| {
                    count.fetch_add(usize::from(mishap.is_some()), Ordering::Relaxed);
                    mishap
                };
                match dice.below(4) {
                    0 => {
                        proxy.plan(move |_| counted(Some(Mishap::Drop)));
                        Harm::Away
                    }
                    1 => {
                        proxy.plan(move |_| counted(Some(Mishap::Refuse(503, "SlowDown"))));
                        Harm::Overloaded
                    }
                    _ => {
                        proxy.plan(move |asked| counted(mishap(seed, asked)));
                        Harm::Unreliable
                    }
                }
            }
        };
        Some(Hurt { how, until })
    }

    /// Puts it in order again.
    pub(super) fn heal(&self, world: &World, hurt: &Hurt) {
        let folder = world.root().join("storage/main");
        match hurt.how {
            Harm::Full => fs::remove_file(folder.join("ballast")).unwrap(),
            Harm::ReadOnly => mount_remount(&folder, MountFlags::empty(), c"").expect("writable"),
            Harm::Away | Harm::Overloaded | Harm::Unreliable => match self {
                Storage::Bucket(bucket) => bucket.proxy.plan(|_| None),
                Storage::Folder => {}
            },
        }
    }

    /// The repository of a volume, past everything that goes wrong.
    pub(super) fn repository(&self, world: &World, volume: &str) -> Repository {
        match self {
            Storage::Folder => world.repository("main", volume),
            Storage::Bucket(bucket) => {
                let server = &bucket.server;
                let address = format!("s3:{}/{BUCKET}/some/where/default/{volume}", server.endpoint());
                world.repository_at(Place::Bucket(address, server.key.environment()))
            }
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::Folder => f.write_str("in a folder"),
            Storage::Bucket(bucket) => {
                write!(f, "in a bucket, {} mishaps", bucket.mishaps.load(Ordering::Relaxed))
            }
        }
    }
}

fn hurt_folder(world: &World, dice: &mut Dice) -> Option<Harm> {
    if !is_root() {
        return None;
    }
    let folder = world.root().join("storage/main");
    if dice.below(2) == 0 {
        // Whoever writes just now has it open, and the kernel refuses.
        return mount_remount(&folder, MountFlags::RDONLY, c"").is_ok().then_some(Harm::ReadOnly);
    }
    let file = File::create(folder.join("ballast")).unwrap();
    let space = rustix::fs::fstatvfs(&file).unwrap();
    // Executors take some of it meanwhile: the rest is found by asking for less and less.
    let mut size = space.f_bavail * space.f_frsize;
    while size > 1 << 12 && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).is_err() {
        size -= size / 64;
    }
    Some(Harm::Full)
}

/// What goes wrong with a request, with three of ten. A list is not given a wrong bit: nothing in it would tell, so that is left
/// to TLS.
fn mishap(seed: u64, asked: &Request) -> Option<Mishap> {
    let mut dice = Dice::of(seed ^ (asked.number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    dice.next();
    if dice.below(10) >= 3 {
        return None;
    }
    Some(match dice.below(8) {
        0 => Mishap::Refuse(503, "SlowDown"),
        1 => Mishap::Refuse(500, "InternalError"),
        2 => Mishap::Drop,
        3 => Mishap::Lose,
        4 => Mishap::Tear,
        5 => Mishap::Shorten,
        6 if asked.method == "GET" && !asked.path.contains('?') => Mishap::Flip,
        _ => Mishap::Delay(Duration::from_millis(dice.below(2000))),
    })
}
