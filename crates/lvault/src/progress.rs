//! Showing how far something is: a bar that moves on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kube::ResourceExt;
use lvault_api::{LogicalVolume, Phase, Progress, TransferStatus};
use tokio::time::Instant;

use crate::objects::{Kind, current_transfer, is_deleting, phase, phase_word, problem, title};
use crate::output::{bytes, share, span};
use crate::say;

/// Lines of the same phase come no closer than this.
const PACE: Duration = Duration::from_secs(2);

/// Tells a person what happens to one object.
pub struct Narrator {
    bar: Option<ProgressBar>,
    told: Option<(String, String, Instant)>,
    deleting: bool,
}

impl Narrator {
    /// One that tells about an object's way to readiness, or about its deletion.
    pub fn new(deleting: bool) -> Self {
        Narrator { bar: say::on_terminal().then(bar), told: None, deleting }
    }

    /// Tells about a version of the object, where it says anything new.
    pub fn see(&mut self, volume: &LogicalVolume) {
        let (phase, line) = if self.deleting {
            ("Deleting".to_owned(), format!("{}: Deleting", title(volume)))
        } else {
            (phase(volume), line(volume))
        };
        if let Some(bar) = &self.bar {
            show(bar, volume, &line, self.deleting);
            return;
        }
        let fresh = match &self.told {
            None => true,
            Some((_, told, _)) if *told == line => false,
            Some((before, _, when)) => *before != phase || when.elapsed() >= PACE,
        };
        if fresh {
            say::note(&line);
            self.told = Some((phase, line, Instant::now()));
        }
    }

    /// Takes the bar away, and hands on what was found.
    pub fn end<T>(&mut self, found: T) -> T {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        found
    }
}

impl Drop for Narrator {
    fn drop(&mut self) {
        self.end(());
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn show(bar: &ProgressBar, volume: &LogicalVolume, line: &str, deleting: bool) {
    let running = current_transfer(volume).filter(|transfer| !deleting && transfer.phase == Phase::Running);
    let Some(progress) = running.and_then(|transfer| transfer.progress.as_ref()) else {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(line.to_owned());
        return;
    };
    let template = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes}{prefix}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_length(progress.total_bytes.max(0) as u64);
    bar.set_position(progress.bytes_done.max(0) as u64);
    bar.set_message(volume.name_any());
    bar.set_prefix(pace(progress));
}

/// The rate and the time left, as far as they can be known.
fn pace(progress: &Progress) -> String {
    let left = progress.total_bytes.saturating_sub(progress.bytes_done).max(0);
    if progress.bytes_per_second <= 0 {
        return String::new();
    }
    format!(", {}/s, {} left", bytes(progress.bytes_per_second), span(left / progress.bytes_per_second))
}

/// Where the object stands, in one line.
pub fn line(volume: &LogicalVolume) -> String {
    let title = title(volume);
    if is_deleting(volume) {
        return format!("{title}: Deleting");
    }
    match (Kind::of(volume), current_transfer(volume)) {
        (Kind::Snapshot | Kind::Restore, Some(transfer)) => format!("{title}: {}", stage(transfer)),
        (Kind::Snapshot | Kind::Restore | Kind::Volume, _) => match problem(volume) {
            Some((_, message)) => format!("{title}: {}: {message}", phase(volume)),
            None => format!("{title}: {}", phase(volume)),
        },
    }
}

fn stage(transfer: &TransferStatus) -> String {
    let phase = phase_word(transfer.phase);
    let lost = transfer.executor.as_ref().and_then(|executor| executor.lost).filter(|lost| *lost > 0);
    let lost = lost.map(|lost| format!(", executors lost: {lost}")).unwrap_or_default();
    match (transfer.phase, &transfer.progress) {
        // The walk that finds out how much there is runs beside the copy, and is not always the faster one.
        (Phase::Running, Some(progress)) if progress.total_bytes == 0 => {
            format!("{phase}, {} so far, the whole is being counted{lost}", bytes(progress.bytes_done))
        }
        (Phase::Running, Some(progress)) if progress.bytes_done >= progress.total_bytes => {
            format!(
                "{phase}: {} in {} files are copied and being checked{lost}",
                bytes(progress.total_bytes),
                progress.total_files
            )
        }
        (Phase::Running, Some(progress)) => format!(
            "{phase}, {}% ({} of {}, {} of {} files{}){lost}",
            share(progress),
            bytes(progress.bytes_done),
            bytes(progress.total_bytes),
            progress.files_done,
            progress.total_files,
            pace(progress)
        ),
        (Phase::Succeeded, Some(progress)) => {
            let took = transfer.duration.as_ref().map(|took| format!(" in {took}")).unwrap_or_default();
            match &transfer.message {
                Some(message) => format!("{phase}{took}: {message}"),
                None => format!("{phase}{took}: {} in {} files", bytes(progress.total_bytes), progress.total_files),
            }
        }
        (Phase::Failed, _) => match &transfer.error {
            Some(error) => format!("{phase}: {}: {}", error.code, error.message),
            None => phase.to_owned(),
        },
        (Phase::Pending | Phase::Running | Phase::Succeeded, _) => match &transfer.message {
            Some(message) => format!("{phase}: {message}{lost}"),
            None => format!("{phase}{lost}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{snapshot, volume};
    use serde_json::json;

    #[test]
    fn a_line_says_where_it_stands() {
        let online = |fields: serde_json::Value| {
            let mut status = json!({"operation": "Backup", "attempt": 1});
            status.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
            line(&snapshot(json!({"onlineSnapshot": status, "phase": fields["phase"]})))
        };
        let progress = json!({"totalBytes": 300 << 20, "bytesDone": 126 << 20, "totalFiles": 10, "filesDone": 4,
            "percentage": "42%", "bytesPerSecond": 10 << 20});
        assert_eq!(line(&volume(json!({}))), "volume v1: New");
        assert_eq!(
            line(&volume(json!({"phase": "Error", "code": 8, "message": "no room"}))),
            "volume v1: Error: no room"
        );
        assert_eq!(online(json!({"phase": "Pending"})), "snapshot s1: Pending");
        assert_eq!(
            online(json!({"phase": "Running", "progress": progress})),
            "snapshot s1: Running, 42% (126 MiB of 300 MiB, 4 of 10 files, 10.0 MiB/s, 17s left)"
        );
        assert_eq!(
            online(json!({"phase": "Running", "message": "copying", "executor": {"lost": 2}})),
            "snapshot s1: Running: copying, executors lost: 2"
        );
        assert_eq!(
            online(json!({"phase": "Succeeded", "progress": progress, "duration": "12s"})),
            "snapshot s1: Succeeded in 12s: 300 MiB in 10 files"
        );
        assert_eq!(
            online(json!({"phase": "Failed", "error": {"code": "MountFailed", "message": "no"}})),
            "snapshot s1: Failed: MountFailed: no"
        );
    }
}
