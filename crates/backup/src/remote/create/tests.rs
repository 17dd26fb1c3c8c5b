//! Several writers at once, on a server that honours the condition, on one that ignores it, and on one that knows none.

use super::*;
use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Honoured,
    Ignored,
    NotImplemented,
    /// Honoured, but in two steps: whoever comes in between is let through.
    InTwoSteps,
    /// Honoured, but the first answer is lost.
    HonouredAndLost,
}

#[derive(Debug)]
struct Server {
    files: InMemory,
    condition: Condition,
    has_lost: AtomicBool,
    /// So many answers to a look arrive late, when they are not true any more.
    slow_looks: AtomicUsize,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("server")
    }
}

#[async_trait]
impl ObjectStore for Server {
    async fn put_opts(&self, at: &Path, content: PutPayload, mut options: PutOptions) -> Result<PutResult, Error> {
        if options.mode == PutMode::Create {
            match self.condition {
                Condition::Honoured | Condition::HonouredAndLost => {}
                Condition::InTwoSteps if self.files.head(at).await.is_err() => options.mode = PutMode::Overwrite,
                Condition::InTwoSteps => {}
                Condition::Ignored => options.mode = PutMode::Overwrite,
                Condition::NotImplemented => {
                    let source = "NotImplemented".into();
                    return Err(Error::Generic { store: "test", source });
                }
            }
        }
        // Writers overlap.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let put = self.files.put_opts(at, content, options).await;
        if self.condition == Condition::HonouredAndLost && !self.has_lost.swap(true, Ordering::SeqCst) {
            let source = Box::new(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            return Err(Error::Generic { store: "test", source });
        }
        put
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>, Error> {
        self.files.put_multipart_opts(at, options).await
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult, Error> {
        let answer = self.files.get_opts(at, options).await;
        let less = |left: usize| left.checked_sub(1);
        if self.slow_looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            tokio::time::sleep(WRITE + Duration::from_millis(200)).await;
        }
        answer
    }
    fn delete_stream(&self, all: BoxStream<'static, Result<Path, Error>>) -> BoxStream<'static, Result<Path, Error>> {
        self.files.delete_stream(all)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        self.files.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Error> {
        self.files.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Error> {
        self.files.copy_opts(from, to, options).await
    }
}

fn storage(condition: Condition) -> Storage {
    with_slow_looks(condition, 0)
}

fn with_slow_looks(condition: Condition, looks: usize) -> Storage {
    let (has_lost, slow_looks) = (AtomicBool::new(false), AtomicUsize::new(looks));
    Storage::over(Arc::new(Server { files: InMemory::new(), condition, has_lost, slow_looks }))
}

#[test]
fn one_of_several_writers_wins_and_the_others_see_it() {
    let all = [Condition::Honoured, Condition::InTwoSteps, Condition::Ignored, Condition::NotImplemented];
    for condition in all {
        let storage = storage(condition);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let storage = &storage;
                    scope.spawn(move || {
                        let content = Bytes::from(format!("config of {writer}"));
                        (create(storage, "config", &content, Duration::from_secs(20)), content)
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let there = storage.read("config").unwrap();
        for (outcome, content) in outcomes {
            match outcome {
                Ok(()) => assert_eq!(content, there, "{condition:?}: whoever wins sees its own"),
                Err(err) => assert_eq!((err.kind(), content == there), (CauseKind::Exists, false), "{condition:?}"),
            }
        }
    }
}

#[test]
fn a_lost_answer_is_looked_for_and_a_file_that_is_there_stays() {
    let lost = storage(Condition::HonouredAndLost);
    let content = Bytes::from_static(b"ours");
    create(&lost, "config", &content, Duration::from_secs(20)).unwrap();
    assert_eq!(lost.read("config").unwrap(), content);
    for condition in [Condition::Honoured, Condition::Ignored] {
        let storage = storage(condition);
        storage.overwrite_once("config", &Bytes::from_static(b"theirs")).unwrap().unwrap();
        let err = create(&storage, "config", &content, Duration::from_secs(20)).unwrap_err();
        assert_eq!(err.kind(), CauseKind::Exists);
        assert_eq!(storage.read("config").unwrap(), "theirs");
    }
}

#[test]
fn an_answer_that_is_too_old_is_not_acted_upon() {
    let storage = with_slow_looks(Condition::Ignored, 1);
    std::thread::scope(|scope| {
        let ours = scope.spawn(|| create(&storage, "config", &Bytes::from_static(b"ours"), Duration::from_secs(20)));
        std::thread::sleep(Duration::from_millis(200));
        storage.overwrite_once("config", &Bytes::from_static(b"theirs")).unwrap().unwrap();
        assert_eq!(ours.join().unwrap().unwrap_err().kind(), CauseKind::Exists);
    });
    assert_eq!(storage.read("config").unwrap(), "theirs");
    let never = with_slow_looks(Condition::Ignored, usize::MAX);
    let err = create(&never, "config", &Bytes::from_static(b"ours"), Duration::from_secs(1)).unwrap_err();
    assert_eq!(err.kind(), CauseKind::Busy, "{err}");
}
