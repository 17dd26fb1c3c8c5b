//! Watches that end too soon or come too late.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use crate::fault::Cut;
use crate::layer::Lost;

/// The bytes of a body as they come.
pub(crate) type Frames = BoxStream<'static, Result<Bytes, BoxError>>;

/// Most frames of a late watch that are on their way at a time.
const ON_THE_WAY: usize = 4096;

/// Every frame later by `delay`, in the same order.
pub(crate) fn late(frames: Frames, delay: Duration) -> Frames {
    let due = move |frame| {
        let due = Instant::now() + delay;
        async move {
            sleep_until(due).await;
            frame
        }
    };
    frames.map(due).buffered(ON_THE_WAY).boxed()
}

/// Lines of the frames, each with its end.
fn lines(frames: Frames) -> Frames {
    let split = stream::try_unfold((frames, Vec::new()), |(mut frames, mut left): (Frames, Vec<u8>)| async move {
        loop {
            if let Some(end) = left.iter().position(|byte| *byte == b'\n') {
                let rest = left.split_off(end + 1);
                return Ok(Some((Bytes::from(left), (frames, rest))));
            }
            match frames.try_next().await? {
                Some(frame) => left.extend_from_slice(&frame),
                None if left.is_empty() => return Ok::<_, BoxError>(None),
                None => return Ok(Some((Bytes::from(std::mem::take(&mut left)), (frames, left)))),
            }
        }
    });
    split.boxed()
}

/// The first `after` lines, then the end.
pub(crate) fn cut(frames: Frames, after: usize, how: Cut) -> Frames {
    let lines = lines(frames);
    match how {
        Cut::Clean => lines.take(after).boxed(),
        Cut::Torn => {
            let halved = move |(index, line): (usize, Result<Bytes, BoxError>)| {
                line.map(|line| if index < after { line } else { line.slice(..line.len() / 2) })
            };
            lines.take(after + 1).enumerate().map(halved).boxed()
        }
        Cut::Broken => {
            let error = stream::once(async { Err(BoxError::from(Lost { what: "the connection broke" })) });
            lines.take(after).chain(error).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parts: &[&'static str]) -> Frames {
        let parts: Vec<Result<Bytes, BoxError>> =
            parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        stream::iter(parts).boxed()
    }

    async fn read(frames: Frames) -> (String, bool) {
        let mut text = String::new();
        let mut broken = false;
        for frame in frames.collect::<Vec<_>>().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(&frame).expect("text")),
                Err(_error) => broken = true,
            }
        }
        (text, broken)
    }

    #[tokio::test]
    async fn watches_are_cut_after_whole_lines_in_the_middle_or_by_an_error() {
        // Lines and frames need not agree.
        let parts = ["one\ntw", "o\nthree\nfo", "ur\n"];
        assert_eq!(read(cut(frames(&parts), 2, Cut::Clean)).await, (String::from("one\ntwo\n"), false));
        assert_eq!(read(cut(frames(&parts), 0, Cut::Clean)).await, (String::new(), false));
        assert_eq!(read(cut(frames(&parts), 2, Cut::Torn)).await, (String::from("one\ntwo\nthr"), false));
        assert_eq!(read(cut(frames(&parts), 1, Cut::Broken)).await, (String::from("one\n"), true));
        assert_eq!(read(cut(frames(&parts), 9, Cut::Clean)).await, (String::from("one\ntwo\nthree\nfour\n"), false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_watch_is_late_by_the_same_for_all() {
        let start = Instant::now();
        let mut late = late(frames(&["a", "b", "c"]), Duration::from_secs(5));
        for expected in ["a", "b", "c"] {
            assert_eq!(late.try_next().await.expect("goes on").as_deref(), Some(expected.as_bytes()));
            assert_eq!(start.elapsed(), Duration::from_secs(5), "{expected}");
        }
        assert!(late.try_next().await.expect("ends").is_none());
    }
}
