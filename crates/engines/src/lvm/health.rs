//! What is wrong with a volume: with itself, and with the storage beneath it.

use super::config::Config;
use super::error::LvmError;
use super::report::Report;
use super::room::storage;
use super::{LvmEngine, Volume};
use crate::health::Problem;

impl LvmEngine {
    /// Everything that is known against a volume, the worst first; from a report, so that it costs nothing.
    pub(super) fn problems_of(&self, report: &Report, config: &Config, volume: Volume<'_>) -> Vec<Problem> {
        let mut errors = Vec::new();
        if volume.lv.is_lost_snapshot() {
            errors.push(LvmError::SnapshotOverflow { id: volume.id.clone() });
        } else if let Some(health) = volume.lv.problem() {
            errors.push(LvmError::VolumeFailed { id: volume.id.clone(), health });
        }
        match self.class(config, &volume) {
            Ok(class) => match storage(report, config, class) {
                Ok(storage) => errors.extend(storage.problems()),
                Err(missing) => errors.push(missing),
            },
            Err(gone) => errors.push(gone),
        }
        let mut problems: Vec<Problem> = errors.iter().filter_map(LvmError::problem).collect();
        problems.sort_by_key(|problem| problem.kind);
        problems
    }
}
