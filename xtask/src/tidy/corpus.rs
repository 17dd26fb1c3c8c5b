//! Rules about fuzzing: small corpora, and a workspace of its own.

use std::fs;
use std::path::Path;

/// Inputs of one target, at most.
const MOST_FILES: usize = 100;
/// Bytes of all inputs of one target, at most.
const MOST_BYTES: u64 = 200 * 1024;

/// Checks the folder `fuzz`, where there is one.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/corpus");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut wrong = Vec::new();
    for target in list(&folder)? {
        let inputs = list(&target)?;
        let sizes = inputs.iter().map(|input| fs::metadata(input).map(|found| found.len()));
        let bytes: u64 =
            sizes.sum::<Result<_, _>>().map_err(|e| format!("cannot look at {}: {e}", target.display()))?;
        let name = target.strip_prefix(root).unwrap_or(&target).display().to_string();
        wrong.extend(corpus(&name, inputs.len(), bytes));
    }
    let read = |name: &str| fs::read_to_string(root.join(name)).map_err(|e| format!("cannot read {name}: {e}"));
    wrong.extend(apart(&read("Cargo.lock")?, &read("fuzz/Cargo.toml")?));
    Ok(wrong)
}

fn list(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// A corpus is run by every `make test`, and read by people.
fn corpus(name: &str, files: usize, bytes: u64) -> Option<String> {
    let fits = (1..=MOST_FILES).contains(&files) && bytes <= MOST_BYTES;
    (!fits).then(|| {
        format!(
            "{name}: {files} inputs with {bytes} bytes; 1 to {MOST_FILES} with {MOST_BYTES} at most: FUZZ_KEEP=1 merges"
        )
    })
}

/// lvault itself is built without libFuzzer, whose C++ and licence are not its own; and what runs it forbids `unsafe`, too.
fn apart(lock: &str, manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if lock.contains("\"libfuzzer-sys\"") {
        wrong.push("Cargo.lock: libfuzzer-sys belongs into the workspace in fuzz/ only".to_owned());
    }
    for line in ["[workspace]", "unsafe_code = \"forbid\""] {
        if !manifest.lines().any(|found| found.trim() == line) {
            wrong.push(format!("fuzz/Cargo.toml: it lacks `{line}`"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_offender() {
        assert!(corpus("a", 0, 0).is_some() && corpus("a", MOST_FILES + 1, 0).is_some());
        assert!(corpus("a", 1, MOST_BYTES + 1).is_some() && corpus("a", MOST_FILES, MOST_BYTES).is_none());
        let manifest = "[workspace]\n[lints.rust]\nunsafe_code = \"forbid\"\n";
        assert!(apart("name = \"redb\"", manifest).is_empty());
        assert_eq!(apart("name = \"libfuzzer-sys\"", manifest).len(), 1);
        assert_eq!(apart("", "[lints.rust]\n").len(), 2);
    }
}
