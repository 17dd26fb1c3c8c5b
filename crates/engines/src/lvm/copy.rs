//! Copies of thick snapshots: LVM cuts no snapshot of a thick snapshot, so what is cut from one is a volume of its own
//! with the same bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::config::Kind;
use super::devices::node;
use super::error::LvmError;
use super::room::storage;
use super::tags;
use super::volume::require_free_name;
use super::{LvmEngine, Volume};
use crate::engine::{Access, Change, NewSnapshot};
use crate::error::EngineError;
use crate::locks::hold;

const CHUNK: usize = 1 << 20;

impl LvmEngine {
    /// Makes a volume with what a thick snapshot holds. The caller holds the locks of both. A clone that is written to
    /// has no moment of its own, so only a read-only snapshot can be copied.
    pub(super) fn copy_thick(&self, new: &NewSnapshot, source: Volume<'_>) -> Result<Change, EngineError> {
        if source.facts.access == Access::ReadWrite {
            return Err(LvmError::ThickSnapshot { id: source.id.clone(), what: "a snapshot of it" }.into());
        }
        let config = self.lvm.live.now();
        let class = self.class(&config, &source)?;
        let (source_held, held) = (self.hold_tools(source.id)?, self.hold_tools(&new.id)?);
        let from = self.activate(source, &source_held)?.path()?;
        {
            let _room = hold(&self.room);
            let report = self.lvm.report()?;
            let storage = storage(&report, &config, class)?;
            storage.require_sound()?;
            require_free_name(storage.group, &class.volume_group, &new.id)?;
            storage.require_room(&new.id, source.facts.size, &self.owner)?;
            let mut args = vec!["lvcreate".to_owned(), "-y".to_owned(), "-W".to_owned(), "y".to_owned()];
            args.extend(["-n", new.id.as_str(), "-L", &format!("{}b", source.facts.size.0)].map(str::to_owned));
            args.extend(tags::made(&self.owner, &class.name, source.facts.filesystem, new.access, Some(source.id)));
            match &class.kind {
                Kind::Thick { .. } => args.extend(class.create_options(None)),
                Kind::Thin { .. } => {
                    return Err(LvmError::ThickSnapshot { id: source.id.clone(), what: "a thin snapshot of it" }.into());
                }
            }
            args.push(class.volume_group.clone());
            self.lvm.change(&args, Some(&held), &format!("making room for a copy of snapshot {}", source.id))?;
        }
        let to = node(source.group_name, new.id.as_str());
        let copied = copy(&from, &to, source.facts.size.0);
        let finished = copied.and_then(|()| self.finish(new, source, true, &held));
        self.or_take_back(finished, source.group_name, &new.id, &held)
    }
}

/// Copies all of a device, and zeroes what the other has beyond it.
fn copy(from: &Path, to: &Path, length: u64) -> Result<(), EngineError> {
    let mut source = File::open(from).map_err(EngineError::io("opening", from))?;
    let mut target = OpenOptions::new().write(true).open(to).map_err(EngineError::io("opening", to))?;
    let mut block = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        source.read_exact(&mut block[..count]).map_err(EngineError::io("reading", from))?;
        target.write_all(&block[..count]).map_err(EngineError::io("writing", to))?;
        left -= count as u64;
    }
    let end = target.seek(SeekFrom::End(0)).map_err(EngineError::io("asking for the size of", to))?;
    target.seek(SeekFrom::Start(length)).map_err(EngineError::io("going to the end of", to))?;
    io::copy(&mut io::repeat(0).take(end.saturating_sub(length)), &mut target)
        .map_err(EngineError::io("zeroing", to))?;
    target.sync_all().map_err(EngineError::io("making durable", to))
}
