//! What the demo does, step by step, all of it through the API, as a user would.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kube::ResourceExt;
use lvault_api::{
    AccessType, DeletionPolicy, LogicalVolume, LogicalVolumeSpec, OnReadError, StorageReference, format_size,
};
use lvault_core::Bytes;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::live::{self, Writer};
use super::manifest::{Difference, Manifest};
use super::tree;
use crate::args::{PlacementArgs, RestoreArgs, WaitArgs};
use crate::command::storage::Asked;
use crate::command::{restore, snapshot, storage, volume};
use crate::error::CliError;
use crate::follow::{Goal, follow};
use crate::objects::{published_path, transfer};
use crate::output::Table;
use crate::processes::copy_folder;
use crate::progress::line;
use crate::say;
use crate::server::Server;

/// No step may take longer than this.
const LIMIT: Duration = Duration::from_secs(600);
/// So many differences are shown of each comparison.
const SHOWN: usize = 10;

/// Everything the steps need.
pub(super) struct Script {
    pub(super) server: Server,
    pub(super) repository: PathBuf,
    pub(super) password: Zeroizing<String>,
    pub(super) data: Option<PathBuf>,
    pub(super) size: Bytes,
    /// Whether the engine's snapshots show one instant.
    pub(super) one_instant: bool,
    pub(super) stop: Arc<AtomicBool>,
}

/// What was found.
pub(super) struct Findings {
    rows: Vec<(String, bool, String)>,
    differences: Vec<Difference>,
}

impl Findings {
    fn note(&mut self, what: &str, good: bool, detail: impl Into<String>) {
        self.rows.push((what.to_owned(), good, detail.into()));
    }

    fn compare(&mut self, what: &str, expected: &Manifest, found: &Manifest) {
        let differences = expected.differences(found);
        let detail = match differences.len() {
            0 => format!("{} names, {}: content and metadata are the same", expected.len(), Bytes(expected.bytes())),
            count => format!("{count} differences in {} names", expected.len()),
        };
        self.note(what, differences.is_empty(), detail);
        self.differences.extend(differences);
    }

    /// Whether everything is as it should be.
    pub(super) fn are_good(&self) -> bool {
        self.rows.iter().all(|(_, good, _)| *good)
    }

    /// The findings as a table, with the first differences below it.
    pub(super) fn render(&self) -> String {
        let mut table = Table::new(vec!["FINDING", "RESULT", "DETAIL"]);
        for (what, good, detail) in &self.rows {
            let result = if *good { "ok" } else { "WRONG" };
            table.row(vec![what.clone(), result.to_owned(), detail.clone()]);
        }
        let mut text = table.render();
        for Difference { path, what } in self.differences.iter().take(SHOWN) {
            text.push_str(&format!("  {:?}: {what}\n", path.display().to_string()));
        }
        text
    }
}

impl Script {
    /// Does everything. What it makes stays: tearing it down is its caller's.
    pub(super) async fn run(&self) -> Result<Findings, CliError> {
        let mut findings = Findings { rows: Vec::new(), differences: Vec::new() };
        let at = self.add_storage().await?;
        let (source, quiet) = self.fill_volume().await?;
        let (first, least) = self.snapshot_while_writing(&at, &source, &mut findings).await?;
        self.snapshot_of_little_change(&at, &source, &mut findings).await?;
        self.delete_source().await?;
        let restored = self.restore(&at, &first).await?;
        let held = self.open_local_snapshot().await?;
        self.compare(quiet, &held, &restored, least, &mut findings).await?;
        Ok(findings)
    }

    async fn add_storage(&self) -> Result<StorageReference, CliError> {
        step("adding a storage for repositories");
        let at = StorageReference { name: "backup".to_owned(), namespace: "default".to_owned() };
        let folder = self.repository.display().to_string();
        storage::add(&self.server, &at, Asked::local(&folder)?, Some(self.password.clone())).await?;
        storage::checked(&self.server, &at, Some(LIMIT)).await?;
        Ok(at)
    }

    /// Makes the volume and fills it. Answers with its folder and with what is in it and will not change.
    async fn fill_volume(&self) -> Result<(PathBuf, Manifest), CliError> {
        step("making a volume and filling it with every kind of file");
        let wait = WaitArgs { wait: true, timeout: Some(LIMIT) };
        let size = format_size(self.size).0;
        volume::create(&self.server, "data", &size, None, None, &PlacementArgs::default(), wait).await?;
        let folder = PathBuf::from(volume::path(&self.server, "data").await?);
        let (root, data, stop) = (folder.clone(), self.data.clone(), Arc::clone(&self.stop));
        let quiet = blocking("filling the volume", move || {
            match &data {
                Some(data) => copy_folder(data, &root)?,
                None => tree::make(&root, &stop)?,
            }
            std::fs::create_dir_all(root.join(live::FOLDER))?;
            Manifest::read(&root, Some(live::FOLDER), &stop)
        })
        .await?;
        say::result(&format!("   {} names, {} in {}", quiet.len(), Bytes(quiet.bytes()), folder.display()));
        Ok((folder, quiet))
    }

    /// Takes the snapshot while a writer works. Answers with the snapshot, and with how many steps of the writer it has
    /// to hold at least.
    async fn snapshot_while_writing(
        &self,
        at: &StorageReference,
        source: &Path,
        findings: &mut Findings,
    ) -> Result<(LogicalVolume, u64), CliError> {
        step("taking an online snapshot while a program keeps writing to the volume");
        let failed = |error: std::io::Error| demo_error("writing to the volume", &error.to_string());
        let writer = Writer::start(source).map_err(failed)?;
        while writer.steps() < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let least = writer.steps();
        let started = Instant::now();
        let done = self.snapshot(at, "first", true).await?;
        let (steps, longest) = (writer.steps() - least, writer.longest());
        writer.finish().map_err(failed)?;
        say::result(&format!("   {}", line(&done)));
        let detail = format!(
            "in {:.1} s; the program wrote {steps} times meanwhile, and never waited longer than {:.0} ms",
            started.elapsed().as_secs_f64(),
            longest.as_secs_f64() * 1000.0
        );
        findings.note("snapshot while writing", steps > 0, detail);
        Ok((done, least))
    }

    async fn snapshot_of_little_change(
        &self,
        at: &StorageReference,
        source: &Path,
        findings: &mut Findings,
    ) -> Result<(), CliError> {
        step("changing about 1% of the volume and taking a second snapshot");
        let root = source.to_path_buf();
        if self.data.is_none() {
            let changed = blocking("changing the volume", move || tree::change(&root)).await?;
            say::result(&format!("   {} written", Bytes(changed)));
        }
        let done = self.snapshot(at, "second", false).await?;
        say::result(&format!("   {}", line(&done)));
        let message = transfer(&done).and_then(|transfer| transfer.message.clone()).unwrap_or_default();
        findings.note("second snapshot", true, message);
        Ok(())
    }

    async fn snapshot(&self, at: &StorageReference, name: &str, keep_local: bool) -> Result<LogicalVolume, CliError> {
        let wanted = snapshot::Wanted {
            name: name.to_owned(),
            source: "data".to_owned(),
            storage: at.clone(),
            node: None,
            keep_local,
            backoff_limit: 3,
            deletion_policy: DeletionPolicy::Retain,
            on_read_error: OnReadError::Fail,
        };
        let asked = snapshot::create(&self.server, &wanted).await?;
        self.until(asked, Goal::Succeeded).await
    }

    async fn delete_source(&self) -> Result<(), CliError> {
        step("deleting the source volume");
        if let Some(source) = self.server.volume("data").await? {
            self.server.remove(&self.server.volume_api(), &source, "deleting the source volume").await?;
            follow(&self.server, &source, Goal::Gone, Some(LIMIT)).await?;
        }
        Ok(())
    }

    /// Restores by storage, path and id alone: the snapshot's object is not asked.
    async fn restore(&self, at: &StorageReference, first: &LogicalVolume) -> Result<PathBuf, CliError> {
        step("restoring the first snapshot from its repository into a new volume");
        let status = transfer(first).cloned();
        let args = RestoreArgs {
            name: "restored".to_owned(),
            from: None,
            storage: Some(at.to_string()),
            path: status.as_ref().and_then(|status| status.path.clone()),
            snapshot_id: status.and_then(|status| status.snapshot_id),
            size: Some(format_size(self.size).0),
            filesystem: None,
            node: None,
            placement: PlacementArgs::default(),
            retry: false,
            wait: WaitArgs { wait: true, timeout: Some(LIMIT) },
        };
        let asked = restore::create(&self.server, &args).await?;
        let done = self.until(asked, Goal::Succeeded).await?;
        say::result(&format!("   {}", line(&done)));
        mounted(&done)
    }

    /// Opens what the volume held at the cut: a read-only clone of the local snapshot that was kept.
    async fn open_local_snapshot(&self) -> Result<PathBuf, CliError> {
        let node = self.server.node_for(None)?;
        let spec = LogicalVolumeSpec {
            name: "held".to_owned(),
            node_name: node,
            size: format_size(self.size),
            device_class: None,
            lvcreate_option_class: None,
            source: Some("first".to_owned()),
            access_type: Some(AccessType::Ro),
            filesystem: None,
            online_snapshot: None,
            restore: None,
        };
        let clone = LogicalVolume::new("held", spec);
        let tried = "opening the local snapshot";
        let asked = self.server.create(&self.server.volume_api(), &clone, tried).await?;
        mounted(&self.until(asked, Goal::Ready).await?)
    }

    async fn compare(
        &self,
        quiet: Manifest,
        held: &Path,
        restored: &Path,
        least: u64,
        findings: &mut Findings,
    ) -> Result<(), CliError> {
        step("comparing the restored volume with what the source held at the cut");
        let (held, restored, stop) = (held.to_path_buf(), restored.to_path_buf(), Arc::clone(&self.stop));
        let (at_restored, one_instant) = (restored.clone(), self.one_instant);
        let (expected, found, found_quiet) = blocking("reading the volumes", move || {
            let expected = Manifest::read(&held, None, &stop)?;
            let found = Manifest::read(&restored, None, &stop)?;
            let found_quiet = found.without(live::FOLDER);
            Ok((expected, found, found_quiet))
        })
        .await?;
        findings.compare("restored = held at the cut", &expected, &found);
        findings.compare("restored = noted before the cut", &quiet, &found_quiet);
        let what = if one_instant { "the writer's files are of one instant" } else { "the writer's files are whole" };
        match live::inspect(&at_restored, one_instant, least) {
            Ok(seen) => findings.note(what, true, format!("{} records, of {least} written before", seen.second)),
            Err(wrong) => findings.note(what, false, wrong),
        }
        Ok(())
    }

    async fn until(&self, asked: LogicalVolume, goal: Goal) -> Result<LogicalVolume, CliError> {
        let done = follow(&self.server, &asked, goal, Some(LIMIT)).await?;
        done.ok_or_else(|| demo_error("waiting", &format!("{} is gone", asked.name_any())))
    }
}

fn mounted(volume: &LogicalVolume) -> Result<PathBuf, CliError> {
    let path = published_path(volume).map(PathBuf::from);
    path.ok_or_else(|| demo_error("finding a volume's files", &format!("{} is not mounted", volume.name_any())))
}

fn step(what: &str) {
    say::result(&format!("== {what}"));
}

/// Runs what blocks beside the event loop.
async fn blocking<T: Send + 'static>(
    tried: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, CliError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(demo_error(tried, &error.to_string())),
        Err(ended) => Err(demo_error(tried, &ended.to_string())),
    }
}

pub(super) fn demo_error(tried: &'static str, happened: &str) -> CliError {
    CliError::Demo {
        tried,
        happened: happened.to_owned(),
        remedy: "run it again with --keep and LVAULT_LOG=info, and look at what is left".to_owned(),
    }
}
