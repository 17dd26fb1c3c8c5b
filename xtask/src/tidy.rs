//! Rules of the repository that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file longer than this wants to be two.
const MAX_LINES: usize = 500;

/// What each crate may know of ours. Every arrow leads down.
const BORDERS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("apiserver", &[]),
    ("backup", &[]),
    ("api", &["core"]),
    ("engines", &["core"]),
    ("executor", &["core", "api", "backup"]),
    ("node", &["core", "api", "engines"]),
    ("controller", &["core", "api", "backup"]),
];

/// Checks every rule; all that is wrong is said at once.
pub(crate) fn check() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        wrong.extend(header(&name, &text));
        wrong.extend(length(&name, &text));
    }
    for (name, allowed) in BORDERS {
        wrong.extend(border(&root, name, allowed)?);
    }
    if wrong.is_empty() { Ok(format!("{} Rust files keep the rules", files.len())) } else { Err(wrong.join("\n")) }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, into)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn header(name: &str, text: &str) -> Option<String> {
    let missing = !text.starts_with("//!");
    missing.then(|| format!("{name}: the file does not begin with `//!` lines that say what it is for"))
}

fn length(name: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let limit = if name.ends_with("lvault/src/main.rs") { 30 } else { MAX_LINES };
    (lines > limit).then(|| format!("{name}: {lines} lines, at most {limit}: divide it by topic"))
}

/// A crate's `[dependencies]` name only the crates below it; its tests may use more.
fn border(root: &Path, name: &str, allowed: &[&str]) -> Result<Vec<String>, String> {
    let path = root.join("crates").join(name).join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let dependencies = text.split("[dependencies]").nth(1).unwrap_or_default();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let ours = dependencies.lines().filter_map(|line| line.strip_prefix("lvault-"));
    let ours = ours.filter_map(|line| line.split(['.', ' ', '=']).next());
    Ok(ours
        .filter(|other| !allowed.contains(other))
        .map(|other| format!("crates/{name} depends on crates/{other}, which is not below it"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_offender() {
        assert!(header("a.rs", "use x;").is_some() && header("a.rs", "//! For x.").is_none());
        let long = "//! Long.\n".repeat(MAX_LINES + 1);
        assert!(length("a.rs", &long).is_some());
        assert!(length("crates/lvault/src/main.rs", &"//!\n".repeat(31)).is_some());

        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("crates/core");
        fs::create_dir_all(&folder).expect("the crate's folder");
        let toml = "[dependencies]\nlvault-api.workspace = true\n[dev-dependencies]\nlvault-node.workspace = true\n";
        fs::write(folder.join("Cargo.toml"), toml).expect("the manifest");
        let wrong = border(root.path(), "core", &[]).expect("a readable manifest");
        assert_eq!(wrong, ["crates/core depends on crates/api, which is not below it"]);
    }
}
