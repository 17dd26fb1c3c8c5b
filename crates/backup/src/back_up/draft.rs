//! The snapshot file of a backup.

use super::{BackUp, Parent};
use crate::fault::{Fault, guarded};
use crate::pipeline::{Run, get};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{SnapshotFile, SnapshotSummary, StringList};
use rustic_core::{Id, SnapshotOptions, TreeId};

/// Who writes snapshots.
pub(super) const PROGRAM_VERSION: &str = concat!("lvault ", env!("CARGO_PKG_VERSION"));

/// What is committed: labels, the tree, and a summary of what was done.
pub(super) fn snapshot_draft(
    what: &BackUp,
    tree: Id,
    parent: Option<&Parent>,
    run: &Run,
    begin: Timestamp,
) -> Result<SnapshotFile, Fault> {
    let options = SnapshotOptions::default()
        .host(what.host.as_str().to_owned())
        .command("lvault".to_owned())
        .time(what.time.to_zoned(TimeZone::UTC));
    let mut draft = guarded(|| options.to_snapshot())?;
    let mut tags = StringList::default();
    what.key.tags().into_iter().for_each(|tag| tags.add(tag));
    what.tags.iter().for_each(|tag| tags.add(tag.as_str().to_owned()));
    draft.tags = tags;
    draft.paths = StringList::default();
    draft.paths.add(what.as_path.as_path().display().to_string());
    draft.tree = TreeId::from(tree);
    draft.parent = parent.and_then(Parent::file_id);
    draft.program_version = PROGRAM_VERSION.to_owned();
    draft.summary = Some(summary(run, begin, draft.summary.take().unwrap_or_default()));
    Ok(draft)
}

fn summary(run: &Run, begin: Timestamp, mut summary: SnapshotSummary) -> SnapshotSummary {
    let (counts, end) = (&run.counts, Timestamp::now());
    let seconds = end.duration_since(begin).as_secs_f64();
    summary.files_new = get(&counts.files_new);
    summary.files_changed = get(&counts.files_changed);
    summary.files_unmodified = get(&counts.files_unmodified);
    summary.dirs_new = get(&counts.folders_new);
    summary.dirs_changed = get(&counts.folders_changed);
    summary.dirs_unmodified = get(&counts.folders_unmodified);
    summary.total_files_processed = run.ledger.files();
    summary.total_bytes_processed = run.ledger.bytes();
    summary.total_dirs_processed = run.ledger.folders();
    summary.total_dirsize_processed = get(&counts.tree_bytes);
    summary.data_blobs = get(&counts.data.blobs);
    summary.tree_blobs = get(&counts.trees.blobs);
    summary.data_added_files = get(&counts.data.bytes);
    summary.data_added_files_packed = get(&counts.data.packed);
    summary.data_added_trees = get(&counts.trees.bytes);
    summary.data_added_trees_packed = get(&counts.trees.packed);
    summary.data_added = summary.data_added_files + summary.data_added_trees;
    summary.data_added_packed = summary.data_added_files_packed + summary.data_added_trees_packed;
    summary.backup_start = begin.to_zoned(TimeZone::UTC);
    summary.backup_end = end.to_zoned(TimeZone::UTC);
    summary.backup_duration = seconds;
    summary.total_duration = seconds;
    summary
}
