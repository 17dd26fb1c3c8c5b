//! The file of the store with its witness, altered: called damaged, or opened as it was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::json;

use crate::registry::{Nature, Registry};
use crate::store::file::{FileError, ObjectFile};
use crate::store::transaction::Transaction;
use crate::store::writer::{Shared, Work, Writer};
use crate::store::{Key, State, witness};
use crate::verbs::{Answer, Outcome};

/// Places of the file at which something was written, more or less: where alterations are likely to hit something.
const BLOCK: usize = 64;

/// A file with a few writes in it, closed as usual.
struct Recorded {
    registry: Arc<Registry>,
    folder: PathBuf,
    file: Vec<u8>,
    witness: Vec<u8>,
    /// Where the file's blocks begin that are not empty.
    blocks: Vec<usize>,
    /// What is in it as of each resource version.
    contents: Vec<Vec<(Key, Bytes)>>,
}

static RECORDED: LazyLock<Recorded> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(record())
});

async fn record() -> Recorded {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let folder = parent.join(format!("apiserver-fuzzing-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (path, registry) = (folder.join("recorded"), Arc::new(Registry::with_kinds(&[], &[]).expect("it builds")));
    let (opened, _) = ObjectFile::open(&path, &registry).expect("a new file");
    opened.keep_token_key(&[7; crate::access::token::KEY_LENGTH]).expect("kept");
    let shared = Arc::new(Shared::new(Arc::clone(&registry), State::new(&registry, 0, 8)));
    let writer = Writer::into_file(Arc::clone(&shared), opened).expect("a thread");
    let resource = registry.find_nature(Nature::Namespace).expect("built in");
    let mut contents = vec![Vec::new()];
    for number in 1..=6_usize {
        let name = format!("object-{}", number % 4);
        let key = Key { resource, namespace: String::new(), name: name.clone() };
        let removes = number == 5;
        let work: Work = Box::new(move |tx: &mut Transaction<'_>| {
            let padding = "x".repeat(if number == 2 { 6000 } else { 10 * number });
            let object = json!({"metadata": {"name": name}, "number": number, "padding": padding});
            let stored = if removes { tx.remove(key, object) } else { tx.put(key, object) };
            Ok(Outcome { code: 200, answer: Answer::Object(stored), warnings: Vec::new() })
        });
        writer.submit(&shared, work, false).await.expect("done");
        let table = shared.read().table(resource).clone();
        let key = |name: String| Key { resource, namespace: String::new(), name };
        contents.push(table.into_iter().map(|((_, name), stored)| (key(name), stored.json.clone())).collect());
    }
    writer.close(&shared).await;
    let (file, witness) = (fs::read(&path).expect("the file"), fs::read(witness::path_of(&path)).expect("the witness"));
    let is_used = |at: &usize| file[*at..(*at + BLOCK).min(file.len())].iter().any(|byte| *byte != 0);
    let blocks = (0..file.len()).step_by(BLOCK).filter(is_used).collect();
    Recorded { registry, folder, file, witness, blocks, contents }
}

/// Alterations of four bytes each: which block (two bytes, the last bit of them: of the used ones or of all), where in it, and the
/// bits to flip. A first byte of 255 cuts the file instead; 254 alters the witness.
pub(super) fn state_file(data: &[u8]) {
    let recorded = &*RECORDED;
    let (mut file, mut witness, mut is_accused) = (recorded.file.clone(), recorded.witness.clone(), true);
    for alteration in data.chunks_exact(4).take(64) {
        let [high, low, at, bits] = *alteration else { return };
        let place = usize::from(u16::from_be_bytes([high, low]));
        match high {
            255 => file.truncate(file.len() / 256 * usize::from(low) + usize::from(at) * 16),
            254 => {
                let at = usize::from(at) % witness.len();
                witness[at] ^= bits;
                is_accused = false;
            }
            _ => {
                let begin = match place % 2 {
                    0 => recorded.blocks[place / 2 % recorded.blocks.len()],
                    _ => place / 2 * BLOCK,
                };
                if let Some(byte) = file.get_mut(begin + usize::from(at) % BLOCK) {
                    *byte ^= bits;
                }
            }
        }
    }
    let path = recorded.folder.join("altered");
    fs::write(&path, &file).expect("written");
    fs::write(witness::path_of(&path), &witness).expect("written");
    match ObjectFile::open(&path, &recorded.registry) {
        Ok((_opened, loaded)) => {
            let revision = usize::try_from(loaded.revision).expect("small");
            let last = recorded.contents.len() - 1;
            assert!(revision == last || (!is_accused && revision < last), "silently older: {revision}");
            assert!(loaded.objects == recorded.contents[revision], "at {revision} it holds what never was");
            assert!(loaded.unclaimed.is_empty(), "{:?}", loaded.unclaimed);
        }
        Err(
            FileError::Damaged { .. } | FileError::Older { .. } | FileError::Foreign { .. } | FileError::Empty { .. },
        ) => {}
        Err(FileError::Newer { .. }) => {}
        Err(other @ (FileError::InUse { .. } | FileError::Io { .. })) => {
            panic!("neither opened nor called damaged: {other:?}")
        }
    }
}
