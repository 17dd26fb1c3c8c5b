//! The embedded API, and etcd beside it: an example of the API's own crate measures both.

use std::path::Path;

use super::run::Program;
use super::{Settings, say};

/// Measures in the scratch folder, so on its filesystem.
pub(crate) fn measure(settings: &Settings, scratch: &Path) -> Result<(), String> {
    let figures = Program::new(&settings.figures).env("FIGURES_IN", scratch).run()?;
    say(figures.trim_end());
    Ok(())
}
