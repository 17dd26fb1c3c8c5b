//! What the LVM engine costs with 10, 100 and 500 volumes, on a kernel that has device-mapper: the guest's, so that the disks of
//! this machine are left alone.

use std::path::Path;

use super::run::Program;
use super::{Settings, say};

/// Runs the measurement in the guest.
pub(crate) fn measure(settings: &Settings) -> Result<(), String> {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/guest.sh");
    let options = ["--disk", "8G", "--limit", "1800", "--"].map(str::to_owned);
    let said = Program::new(guest).args(options).args([settings.lvm_example.as_os_str()]).args(["/dev/ubda"]).run()?;
    say(said.trim_end());
    Ok(())
}
