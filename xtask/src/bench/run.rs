//! Programs that are run and measured. The only place where they are started.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    /// Seconds on the clock.
    pub(crate) wall: f64,
    /// Seconds of processor time, user and system.
    pub(crate) cpu: f64,
    /// The largest resident set, in MiB.
    pub(crate) peak: f64,
}

#[expect(clippy::disallowed_methods, reason = "the only place where programs are started")]
fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A program to run: its arguments and what it finds in the environment.
pub(crate) struct Program {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    folder: Option<PathBuf>,
}

impl Program {
    pub(crate) fn new(program: impl Into<PathBuf>) -> Program {
        Program { program: program.into(), arguments: Vec::new(), environment: Vec::new(), folder: None }
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Program {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Program {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs it in this folder.
    pub(crate) fn within(mut self, folder: impl Into<PathBuf>) -> Program {
        self.folder = Some(folder.into());
        self
    }

    fn command(&self, through: Option<&Path>) -> Command {
        let mut command = match through {
            // GNU time: it alone tells the largest resident set of a child, whatever the child does at its end.
            Some(figures) => {
                let mut time = command("/usr/bin/time");
                time.args(["--format", "%e %U %S %M", "--output"]).arg(figures).arg(&self.program);
                time
            }
            None => command(&self.program),
        };
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env_remove("LVAULT_STATE_DIR").env_remove("LVAULT_KUBECONFIG").stdin(Stdio::null());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn shown(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.arguments.iter().fold(name, |shown, argument| format!("{shown} {}", argument.to_string_lossy()))
    }

    fn finish(&self, mut command: Command) -> Result<String, String> {
        let output = command.output().map_err(|e| format!("cannot run {}: {e}", self.program.display()))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{} ended with {}: {}", self.shown(), output.status, said.trim()))
        }
    }

    /// Runs it to its end, which has to be a good one. Answers with its standard output.
    pub(crate) fn run(&self) -> Result<String, String> {
        self.finish(self.command(None))
    }

    /// Runs it to its end and tells what it took. `scratch` is a folder for a file of figures.
    pub(crate) fn measure(&self, scratch: &Path) -> Result<Cost, String> {
        let figures = scratch.join("time");
        self.finish(self.command(Some(&figures)))?;
        let text = fs::read_to_string(&figures).map_err(|e| format!("cannot read {}: {e}", figures.display()))?;
        cost(&text).ok_or_else(|| format!("/usr/bin/time is not GNU time: it said {text:?}"))
    }

    /// Starts it; what it prints goes to files.
    pub(crate) fn spawn(&self, out: &Path, log: &Path) -> Result<Child, String> {
        let file = |path: &Path| fs::File::create(path).map_err(|e| format!("cannot make {}: {e}", path.display()));
        let mut command = self.command(None);
        command.stdout(file(out)?).stderr(file(log)?);
        command.spawn().map_err(|e| format!("cannot run {}: {e}", self.program.display()))
    }
}

fn cost(figures: &str) -> Option<Cost> {
    let numbers: Option<Vec<f64>> = figures.split_whitespace().map(|number| number.parse().ok()).collect();
    match numbers?.as_slice() {
        &[wall, user, system, kib] => Some(Cost { wall, cpu: user + system, peak: kib / 1024.0 }),
        _ => None,
    }
}

/// The bytes of all files below a folder.
pub(crate) fn bytes_below(folder: &Path) -> Result<u64, String> {
    let failed = |e: std::io::Error| format!("cannot look into {}: {e}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// Empties all files below a folder, and keeps them: ext4 looks at each inode that was deleted within the last minutes before it makes
/// a file, so that whoever restores next would pay for what was removed.
pub(crate) fn empty_files_below(folder: &Path) -> Result<(), String> {
    let failed = |path: &Path, e: std::io::Error| format!("cannot empty {}: {e}", path.display());
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let path = entry.map_err(|e| failed(folder, e))?.path();
        let kind = fs::symlink_metadata(&path).map_err(|e| failed(&path, e))?.file_type();
        if kind.is_dir() {
            empty_files_below(&path)?;
        } else if kind.is_file() {
            fs::File::create(&path).map_err(|e| failed(&path, e))?;
        }
    }
    Ok(())
}

/// The middle of some figures; of an even number, the mean of the two in the middle.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[upper],
        _ => (sorted[upper - 1] + sorted[upper]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured_and_a_bad_end_is_an_error_with_what_was_said() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let good = Program::new("sh").args(["-c", "echo fine"]);
        assert_eq!(good.run().as_deref(), Ok("fine\n"));
        let bad = Program::new("sh").args(["-c", "echo dreadful >&2; exit 3"]).run().expect_err("it ends badly");
        assert!(bad.contains("dreadful") && bad.contains('3'), "{bad}");
        assert!(Program::new("/nowhere/at/all").run().is_err());
        if Path::new("/usr/bin/time").exists() {
            let cost = good.measure(scratch.path()).expect("figures");
            assert!(cost.peak > 0.1 && cost.wall < 60.0, "{cost:?}");
        }
        fs::write(scratch.path().join("more"), "12345").expect("a file");
        assert!(bytes_below(scratch.path()).expect("a folder") >= 5);
        empty_files_below(scratch.path()).expect("its files");
        assert_eq!(bytes_below(scratch.path()).expect("a folder that is still there"), 0);
    }

    #[test]
    fn figures_are_read_and_their_middle_is_found() {
        assert_eq!(cost("1.50 2.00 0.25 2048\n"), Some(Cost { wall: 1.5, cpu: 2.25, peak: 2.0 }));
        assert_eq!(cost("Command exited with non-zero status 1\n1 2 3 4"), None);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
