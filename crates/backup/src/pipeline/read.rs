//! Reading one file whole, in chunks, or saying why not.

use super::branch::Branch;
use super::chunk::{MIN, Search, is_zero};
use super::{Moment, Run, Worker};
use crate::backend::lock;
use crate::fault::Fault;
use crate::metadata::{Folder, Stat, attributes_of, give_attributes};
use rustic_core::repofile::{BlobType, Node};
use rustic_core::{DataId, Id};
use rustix::fs::SeekFrom;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// So much is read at once.
const PORTION: usize = 1 << 20;

/// So many parts of a hole are noted between two looks at whether to end: half a gibibyte.
const ZEROS_AT_ONCE: usize = 1024;

/// A file to read, as the walk saw it.
pub(super) struct FileJob {
    pub(super) folder: Arc<Folder>,
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    pub(super) stat: Stat,
    /// Without its extended attributes.
    pub(super) node: Node,
    pub(super) branch: Arc<Branch>,
    pub(super) slot: usize,
}

/// A chunk that another worker has read.
pub(super) struct ChunkJob {
    file: Arc<Reading>,
    number: usize,
    content: Vec<u8>,
}

/// A file that is being read, and perhaps pressed by several workers.
struct Reading {
    node: Mutex<Node>,
    ids: Mutex<Vec<Id>>,
    /// Chunks that are not stored, and one while the file is being read.
    open: AtomicUsize,
    failed: AtomicBool,
    branch: Arc<Branch>,
    slot: usize,
}

impl Reading {
    fn set(&self, number: usize, id: Id) {
        let mut ids = lock(&self.ids);
        if ids.len() <= number {
            ids.resize(number + 1, Id::default());
        }
        ids[number] = id;
    }

    /// So many parts with one id.
    fn set_all(&self, from: usize, count: usize, id: Id) {
        let mut ids = lock(&self.ids);
        if ids.len() < from + count {
            ids.resize(from + count, Id::default());
        }
        ids[from..from + count].fill(id);
    }

    /// Closes a chunk, or the reading. Whoever closes the last puts the file into its tree, unless a part of it failed: then
    /// its entry stays empty, and why is in the ledger, or the whole run has failed.
    fn close(&self, run: &Run, worker: &mut Worker, is_whole: bool) {
        if !is_whole {
            self.failed.store(true, Ordering::Relaxed);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if self.failed.load(Ordering::Relaxed) {
            run.ledger.uncount_file(lock(&self.node).meta.size);
            self.branch.set_json(run, self.slot, None);
        } else {
            let mut node = std::mem::take(&mut *lock(&self.node));
            node.content = Some(std::mem::take(&mut *lock(&self.ids)).into_iter().map(DataId::from).collect());
            self.branch.set(run, self.slot, &node);
        }
        run.progress.file_done();
        Arc::clone(&self.branch).close(run, worker);
    }
}

/// What ends the reading of a file.
enum Ended {
    /// The file is at fault.
    File(io::Error),
    /// The whole backup ends.
    Run,
}

impl From<io::Error> for Ended {
    fn from(err: io::Error) -> Self {
        Self::File(err)
    }
}

/// Reads a file and presses its chunks, or hands them to workers that have nothing to do.
pub(super) fn read_file(run: &Run, worker: &mut Worker, job: FileJob) {
    let FileJob { folder, name, path, stat, node, branch, slot } = job;
    let reading = Arc::new(Reading {
        node: Mutex::new(node),
        ids: Mutex::default(),
        open: AtomicUsize::new(1),
        failed: AtomicBool::new(false),
        branch,
        slot,
    });
    let read = open(run, &folder, &name, &stat).map_err(Ended::from).and_then(|file| {
        run.at(Moment::Opened, &path);
        read_chunks(run, worker, &reading, &file, stat.size)?;
        give_attributes(&mut lock(&reading.node), attributes_of(&file)?)?;
        if Stat::of(&file)?.fingerprint() == stat.fingerprint() {
            Ok(())
        } else {
            Err(io::Error::other("the file changed while it was read").into())
        }
    });
    match read {
        Ok(()) => reading.close(run, worker, true),
        Err(ended) => {
            match ended {
                Ended::File(err) => run.record(&path, &err),
                Ended::Run => {}
            }
            reading.close(run, worker, false);
        }
    }
}

/// Presses a chunk that another worker has read.
pub(super) fn press_chunk(run: &Run, worker: &mut Worker, job: ChunkJob) {
    let stored = store(run, worker, &job.file, job.number, &job.content);
    job.file.close(run, worker, stored.is_ok());
}

fn open(run: &Run, folder: &Folder, name: &OsString, stat: &Stat) -> io::Result<File> {
    if run.has_ended() {
        return Err(io::Error::other("the backup ends early"));
    }
    let file = folder.open_file(name)?;
    if Stat::of(&file)?.is_same(stat) {
        Ok(file)
    } else {
        Err(io::Error::other("the file was replaced while the folder was read"))
    }
}

/// Reads exactly as many bytes as the file had when it was seen.
fn read_chunks(run: &Run, worker: &mut Worker, reading: &Arc<Reading>, file: &File, size: u64) -> Result<(), Ended> {
    let mut buffer = std::mem::take(&mut worker.buffer);
    let result = Chunks { run, worker, reading, file, left: size, number: 0 }.read(&mut buffer);
    worker.buffer = buffer;
    result
}

struct Chunks<'a> {
    run: &'a Run,
    worker: &'a mut Worker,
    reading: &'a Arc<Reading>,
    file: &'a File,
    /// Bytes of the file that are not in the buffer yet.
    left: u64,
    number: usize,
}

impl Chunks<'_> {
    fn read(&mut self, buffer: &mut Vec<u8>) -> Result<(), Ended> {
        let (mut begin, mut end, mut search) = (0, 0, Search::default());
        loop {
            if begin == end {
                self.skip_hole()?;
                (begin, end) = (0, self.fill(buffer, 0)?);
            }
            let cut = match self.run.chunker.cut(&buffer[begin..end], &mut search) {
                Some(length) => length,
                None if self.left == 0 => end - begin,
                // A hole may begin here: with the chunk's beginning unread again, it is skipped above.
                None if end - begin < MIN
                    && self.left >= 2 * MIN as u64
                    && begin < end
                    && is_zero(&buffer[begin..end]) =>
                {
                    self.unread(end - begin)?;
                    begin = end;
                    continue;
                }
                None => {
                    if begin > 0 {
                        buffer.copy_within(begin..end, 0);
                        (begin, end) = (0, end - begin);
                    }
                    end = self.fill(buffer, end)?;
                    continue;
                }
            };
            if cut == 0 {
                return Ok(());
            }
            self.run.ledger.count_read(cut as u64);
            self.chunk(&buffer[begin..begin + cut])?;
            (begin, search) = (begin + cut, Search::default());
        }
    }

    /// Reads some more behind `end`; answers with the new end.
    fn fill(&mut self, buffer: &mut Vec<u8>, end: usize) -> Result<usize, Ended> {
        if self.run.must_end() {
            return Err(Ended::Run);
        }
        let wanted = usize::try_from(self.left).map_or(PORTION, |left| left.min(PORTION));
        if buffer.len() < end + wanted {
            buffer.resize(end + wanted, 0);
        }
        let mut read = 0;
        while read < wanted {
            match (&mut &*self.file).read(&mut buffer[end + read..end + wanted]) {
                Ok(0) => {
                    let missing = self.left - read as u64;
                    let text = format!("the file is {missing} bytes shorter than it was when the backup saw it first");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text).into());
                }
                Ok(more) => read += more,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err.into()),
            }
        }
        self.left -= read as u64;
        Ok(end + read)
    }

    /// Goes back by so many bytes.
    fn unread(&mut self, bytes: usize) -> Result<(), Ended> {
        self.left += bytes as u64;
        let here = rustix::fs::tell(self.file).map_err(io::Error::from)?;
        rustix::fs::seek(self.file, SeekFrom::Start(here - bytes as u64)).map_err(io::Error::from)?;
        Ok(())
    }

    /// Where a chunk begins in a hole, takes its zeros without reading them.
    fn skip_hole(&mut self) -> Result<(), Ended> {
        if self.left < 2 * MIN as u64 {
            return Ok(());
        }
        let here = rustix::fs::tell(self.file).map_err(io::Error::from)?;
        let size = here + self.left;
        let data = match rustix::fs::seek(self.file, SeekFrom::Data(here)) {
            Ok(data) => data.min(size),
            // There is no data behind this offset.
            Err(rustix::io::Errno::NXIO) => size,
            // A file system that does not tell; its files are read.
            Err(_) => here,
        };
        let zeros = data.saturating_sub(here) / MIN as u64;
        rustix::fs::seek(self.file, SeekFrom::Start(here + zeros * MIN as u64)).map_err(io::Error::from)?;
        let mut zeros = usize::try_from(zeros).unwrap_or(usize::MAX);
        while zeros > 0 {
            if self.run.must_end() {
                return Err(Ended::Run);
            }
            let id = self.run.zeros(self.worker).map_err(|fault| {
                self.run.fail(fault);
                Ended::Run
            })?;
            let count = zeros.min(ZEROS_AT_ONCE);
            self.reading.set_all(self.number, count, id);
            self.number += count;
            zeros -= count;
            let bytes = count as u64 * MIN as u64;
            self.left -= bytes;
            self.run.progress.bytes(bytes);
        }
        Ok(())
    }

    fn chunk(&mut self, content: &[u8]) -> Result<(), Ended> {
        let number = self.number;
        self.number += 1;
        if self.run.queue.wants_chunk() && content.len() >= MIN {
            self.reading.open.fetch_add(1, Ordering::AcqRel);
            let (file, content) = (Arc::clone(self.reading), content.to_vec());
            self.run.queue.add_chunk(ChunkJob { file, number, content });
            return Ok(());
        }
        store(self.run, self.worker, self.reading, number, content).map_err(|_| Ended::Run)
    }
}

static ZEROS: [u8; MIN] = [0; MIN];

fn store(run: &Run, worker: &mut Worker, file: &Reading, number: usize, content: &[u8]) -> Result<(), ()> {
    if run.must_end() {
        return Err(());
    }
    let stored = if content.len() == MIN && is_zero(content) {
        run.zeros(worker)
    } else {
        run.store(BlobType::Data, content, worker)
    };
    match stored {
        Ok(id) => {
            file.set(number, id);
            run.progress.bytes(content.len() as u64);
            Ok(())
        }
        Err(fault) => {
            run.fail(fault);
            Err(())
        }
    }
}

impl Run {
    /// Stores half a mebibyte of zeros, whose hash is computed once.
    fn zeros(&self, worker: &mut Worker) -> Result<Id, Fault> {
        if let Some(id) = self.zeros.get() {
            return Ok(*id);
        }
        let id = self.store(BlobType::Data, &ZEROS, worker)?;
        Ok(*self.zeros.get_or_init(|| id))
    }
}
