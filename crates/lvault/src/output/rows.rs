//! The columns of each kind's table.

use jiff::Timestamp;
use kube::ResourceExt;
use lvault_api::{LogicalVolume, Progress, Provider, SnapshotBackupStorage, StoragePhase};
use lvault_core::Bytes;

use super::Table;
use crate::objects::{Kind, attempt_asked, phase, phase_word, published_path, size_now, transfer};

/// How long ago something was, as `kubectl` writes it: `5s`, `3m`, `2h`, `7d`.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "-".to_owned(), |since| span(now.as_second().saturating_sub(since.as_second())))
}

/// Seconds with the largest unit that leaves at least two of it; the future counts as now.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{}s", seconds.max(0)),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A count of bytes from a status, which cannot be below 0 unless somebody else wrote it.
pub fn bytes(count: i64) -> String {
    Bytes(u64::try_from(count).unwrap_or(0)).to_string()
}

/// How much of a copy is done, in percent; nothing to copy is done.
pub fn share(progress: &Progress) -> u64 {
    let (done, total) = (progress.bytes_done.max(0) as u64, progress.total_bytes.max(0) as u64);
    if total == 0 { 100 } else { ((u128::from(done) * 100 / u128::from(total)) as u64).min(100) }
}

fn born(volume: &impl ResourceExt) -> Option<Timestamp> {
    volume.creation_timestamp().map(|time| time.0)
}

fn message(volume: &LogicalVolume) -> String {
    let online = transfer(volume);
    let error =
        online.and_then(|online| online.error.as_ref().map(|error| format!("{}: {}", error.code, error.message)));
    let of_volume = || volume.status.as_ref().and_then(|status| status.message.clone());
    error.or_else(of_volume).or_else(|| online.and_then(|online| online.message.clone())).unwrap_or_default()
}

fn size(volume: &LogicalVolume) -> String {
    match (size_now(volume), crate::objects::size_asked(volume)) {
        (Some(now), Some(asked)) if now < asked => format!("{now} -> {asked}"),
        (Some(now), _) => now.to_string(),
        (None, Some(asked)) => asked.to_string(),
        (None, None) => volume.spec.size.0.clone(),
    }
}

fn progress(volume: &LogicalVolume) -> String {
    match transfer(volume).and_then(|transfer| transfer.progress.as_ref()) {
        Some(progress) => format!("{}%", share(progress)),
        None => String::new(),
    }
}

fn copied(volume: &LogicalVolume) -> String {
    let progress = transfer(volume).and_then(|transfer| transfer.progress.as_ref());
    progress.map(|progress| bytes(progress.total_bytes)).unwrap_or_default()
}

/// Volumes: what applications use.
pub(super) fn volumes(all: &[LogicalVolume], wide: bool, now: Timestamp) -> Table {
    let mut headings = vec!["NAME", "SIZE", "NODE", "PHASE", "AGE"];
    if wide {
        headings.extend(["FROM", "PATH", "MESSAGE"]);
    }
    let mut table = Table::new(headings);
    for volume in all {
        let spec = &volume.spec;
        let mut row =
            vec![volume.name_any(), size(volume), spec.node_name.clone(), phase(volume), age(born(volume), now)];
        if wide {
            let restored = spec.restore.as_ref().map(|restore| format!("{}:{}", restore.storage, restore.path));
            row.push(spec.source.clone().or(restored).unwrap_or_default());
            row.push(published_path(volume).unwrap_or_default().to_owned());
            row.push(message(volume));
        }
        table.row(row);
    }
    table
}

/// Snapshots: what is copied off the node.
pub(super) fn snapshots(all: &[LogicalVolume], wide: bool, now: Timestamp) -> Table {
    let mut headings = vec!["NAME", "SOURCE", "STORAGE", "PHASE", "PROGRESS", "DATA", "SNAPSHOT-ID", "AGE"];
    if wide {
        headings.extend(["NODE", "REPOSITORY", "ATTEMPT", "DURATION", "MESSAGE"]);
    }
    let mut table = Table::new(headings);
    for volume in all {
        let online = volume.spec.online_snapshot.as_ref();
        let status = transfer(volume);
        let id = status.and_then(|status| status.snapshot_id.clone()).unwrap_or_default();
        let mut row = vec![
            volume.name_any(),
            volume.spec.source.clone().unwrap_or_default(),
            online.map(|online| online.storage.to_string()).unwrap_or_default(),
            phase(volume),
            progress(volume),
            copied(volume),
            if wide { id } else { id.chars().take(12).collect() },
            age(born(volume), now),
        ];
        if wide {
            row.push(volume.spec.node_name.clone());
            row.push(status.and_then(|status| status.path.clone()).unwrap_or_default());
            row.push(attempt(volume));
            row.push(status.and_then(|status| status.duration.clone()).unwrap_or_default());
            row.push(message(volume));
        }
        table.row(row);
    }
    table
}

/// Restores: how far the filling of volumes is.
pub(super) fn restores(all: &[LogicalVolume], wide: bool, now: Timestamp) -> Table {
    let mut headings = vec!["NAME", "STORAGE", "PATH", "SNAPSHOT-ID", "PHASE", "PROGRESS", "DATA", "AGE"];
    if wide {
        headings.extend(["NODE", "ATTEMPT", "DURATION", "MESSAGE"]);
    }
    let mut table = Table::new(headings);
    for volume in all.iter().filter(|volume| Kind::of(volume) == Kind::Restore) {
        let restore = volume.spec.restore.as_ref();
        let status = transfer(volume);
        let id = restore.map(|restore| restore.snapshot_id.clone()).unwrap_or_default();
        let mut row = vec![
            volume.name_any(),
            restore.map(|restore| restore.storage.to_string()).unwrap_or_default(),
            restore.map(|restore| restore.path.clone()).unwrap_or_default(),
            if wide { id } else { id.chars().take(12).collect() },
            status.map(|status| phase_word(status.phase)).unwrap_or_default().to_owned(),
            progress(volume),
            copied(volume),
            age(born(volume), now),
        ];
        if wide {
            row.push(volume.spec.node_name.clone());
            row.push(attempt(volume));
            row.push(status.and_then(|status| status.duration.clone()).unwrap_or_default());
            row.push(message(volume));
        }
        table.row(row);
    }
    table
}

fn attempt(volume: &LogicalVolume) -> String {
    let done = transfer(volume).map(|status| status.attempt);
    match (done, attempt_asked(volume)) {
        (Some(done), Some(asked)) if asked > done => format!("{done} -> {asked}"),
        (Some(number), _) | (None, Some(number)) => number.to_string(),
        (None, None) => String::new(),
    }
}

/// Storages: where repositories are.
pub(super) fn storages(all: &[SnapshotBackupStorage], wide: bool, now: Timestamp) -> Table {
    let mut headings = vec!["NAMESPACE", "NAME", "PROVIDER", "LOCATION", "PHASE", "AGE"];
    if wide {
        headings.extend(["STORED", "RECLAIMABLE", "SECRET", "MESSAGE"]);
    }
    let mut table = Table::new(headings);
    for storage in all {
        let status = storage.status.as_ref();
        let mut row = vec![
            storage.namespace().unwrap_or_default(),
            storage.name_any(),
            provider(storage.spec.storage.provider).to_owned(),
            location(storage),
            storage_phase(storage).to_owned(),
            age(born(storage), now),
        ];
        if wide {
            let prune = status.and_then(|status| status.prune.as_ref());
            row.push(prune.map(|prune| bytes(prune.total_bytes)).unwrap_or_default());
            row.push(prune.map(|prune| bytes(prune.reclaimable_bytes)).unwrap_or_default());
            row.push(storage.secret_name());
            row.push(status.and_then(|status| status.message.clone()).unwrap_or_default());
        }
        table.row(row);
    }
    table
}

fn provider(provider: Provider) -> &'static str {
    match provider {
        Provider::Local => "local",
        Provider::S3 => "s3",
        Provider::Gcs => "gcs",
        Provider::Azure => "azure",
    }
}

fn location(storage: &SnapshotBackupStorage) -> String {
    let at = &storage.spec.storage;
    let found = match at.provider {
        Provider::Local => at.local.as_ref().map(|local| local.path.clone()),
        Provider::S3 => at.s3.as_ref().map(|s3| format!("{}/{}", s3.endpoint, s3.bucket)),
        Provider::Gcs => at.gcs.as_ref().map(|gcs| gcs.bucket.clone()),
        Provider::Azure => at.azure.as_ref().map(|azure| azure.container.clone()),
    };
    found.unwrap_or_default()
}

/// Where a storage stands, in one word.
pub(crate) fn storage_phase(storage: &SnapshotBackupStorage) -> &'static str {
    match storage.status.as_ref().and_then(|status| status.phase) {
        Some(StoragePhase::Ready) => "Ready",
        Some(StoragePhase::Pending) | None => "Pending",
        Some(StoragePhase::Error) => "Error",
    }
}
