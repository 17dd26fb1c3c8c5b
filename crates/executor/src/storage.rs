//! Failures that come from the storage beneath the volume, told as such.
//!
//! What holds here: the agent sees the storage, and says in the condition `Healthy` what is wrong with it; an executor sees
//! that it cannot read. Nothing is committed while that condition says that copies are spoiled.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lvault_api::conditions::{ailment, spoils_copies};
use lvault_api::task::{Task, Work};
use lvault_core::Held;
use tokio::time::Instant;

use crate::attempt::{Attempt, WriteError};
use crate::copy::CopyError;

/// How the kernel says that a device does not answer as it should: EIO.
const IO_ERROR: &str = "(os error 5)";
/// How long the agent gets to see what is wrong with a device that answers with errors.
const AGENT_LOOKS: Duration = Duration::from_secs(12);
/// The ailments that make a device answer with errors.
const CAUSES: [&str; 4] = ["SnapshotOverflow", "PoolFailed", "VolumeFailed", "DevicesMissing"];

/// Why nothing that was copied meanwhile may be committed, if that is so.
pub(crate) fn spoiled(task: &Task, conditions: &[Condition]) -> Option<CopyError> {
    match &task.work {
        Work::Backup { .. } => {
            let ailment = ailment(conditions).filter(|ailment| spoils_copies(ailment))?;
            let message = format!("{}; what was copied meanwhile was not committed", ailment.message);
            Some(CopyError { code: cause(ailment)?, message })
        }
        Work::Restore { .. } | Work::Forget => None,
    }
}

/// An error with what lies beneath it. A device that answers with errors is named, and the agent gets time to say why it
/// does so.
pub(crate) async fn explained(attempt: &Attempt<'_>, held: &Held, error: CopyError) -> Result<CopyError, WriteError> {
    let Some(device) = folder(attempt.task).and_then(device).filter(|_| error.message.contains(IO_ERROR)) else {
        return Ok(error);
    };
    let said = format!("the device {device} answers with errors: {}", error.message);
    let began = Instant::now();
    while began.elapsed() < AGENT_LOOKS {
        let conditions = attempt.ours(held).await?;
        if let Some((code, ailment)) = ailment(&conditions).and_then(|ailment| Some((cause(ailment)?, ailment))) {
            return Ok(CopyError { code, message: format!("{}; {said}", ailment.message) });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(CopyError { message: format!("{said}; see dmesg"), ..error })
}

fn cause(ailment: &Condition) -> Option<&'static str> {
    let reasons: Vec<&str> = ailment.reason.split(',').collect();
    CAUSES.into_iter().find(|cause| reasons.contains(cause))
}

fn folder(task: &Task) -> Option<&Path> {
    match &task.work {
        Work::Backup { folder, .. } | Work::Restore { folder, .. } => folder.path.as_deref(),
        Work::Forget => None,
    }
}

/// What is mounted at a folder, topmost.
fn device(folder: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    source_of(&table, folder.to_str()?)
}

fn source_of(table: &str, folder: &str) -> Option<String> {
    let mount = table.lines().rev().find(|line| line.split(' ').nth(4) == Some(folder))?;
    let source = mount.split_once(" - ")?.1.split(' ').nth(1)?;
    source.starts_with('/').then(|| source.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_folder_is_the_topmost_one() {
        let table = "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            31 30 254:1 / /mnt/a rw,relatime shared:1 - ext4 /dev/mapper/vg-a rw\n\
            32 30 254:2 / /mnt/a rw - ext4 /dev/mapper/vg-b rw\n\
            33 30 0:5 / /mnt/t rw - tmpfs tmpfs rw\n";
        assert_eq!(source_of(table, "/mnt/a").as_deref(), Some("/dev/mapper/vg-b"));
        assert_eq!(source_of(table, "/mnt/t"), None, "a tmpfs has no device");
        assert_eq!(source_of(table, "/mnt"), None);
    }
}
