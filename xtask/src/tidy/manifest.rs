//! Rules about the crates: their borders, and the lints they share.

use std::fs;
use std::path::Path;

/// What each crate may know of ours. Every arrow leads down.
const BORDERS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("apiserver", &[]),
    ("backup", &[]),
    ("faults", &[]),
    ("conformance", &["apiserver"]),
    ("api", &["core"]),
    ("engines", &["core"]),
    ("storages", &["api", "backup"]),
    ("executor", &["core", "api", "backup", "storages"]),
    ("node", &["core", "api", "engines"]),
    ("controller", &["core", "api", "backup", "storages"]),
    ("sim", &["core", "api", "apiserver", "backup", "engines", "executor", "node", "controller"]),
];

/// The crate at the top, which only wires: it may know all of them.
const TOP: &str = "lvault";

/// The names of the folders in `crates`.
#[cfg(test)]
pub(super) fn crates() -> impl Iterator<Item = &'static str> {
    BORDERS.iter().map(|(name, _)| *name).chain([TOP])
}

/// Checks the manifest of every crate.
pub(super) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    let folder = root.join("crates");
    let entries = fs::read_dir(&folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in &names {
        let text = read(root, &format!("crates/{name}"))?;
        wrong.extend(lints(&format!("crates/{name}"), &text));
        match BORDERS.iter().find(|(known, _)| known == name) {
            Some((_, allowed)) => wrong.extend(border(name, &text, allowed)),
            None if name == TOP => {}
            None => {
                wrong.push(format!("crates/{name} has no borders: add it to BORDERS in xtask/src/tidy/manifest.rs"))
            }
        }
    }
    wrong.extend(lints("xtask", &read(root, "xtask")?));
    Ok(wrong)
}

fn read(root: &Path, folder: &str) -> Result<String, String> {
    fs::read_to_string(root.join(folder).join("Cargo.toml"))
        .map_err(|e| format!("cannot read {folder}/Cargo.toml: {e}"))
}

fn lints(name: &str, manifest: &str) -> Option<String> {
    let shared = section(manifest, "lints").lines().any(|line| line.trim() == "workspace = true");
    (!shared).then(|| format!("{name}: its manifest lacks `[lints] workspace = true`"))
}

/// A crate's `[dependencies]` name only the crates below it; its tests may use more.
fn border(name: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let ours = section(manifest, "dependencies").lines().filter_map(|line| line.strip_prefix("lvault-"));
    let ours = ours.filter_map(|line| line.split(['.', ' ', '=']).next());
    ours.filter(|other| !allowed.contains(other))
        .map(|other| format!("crates/{name} depends on crates/{other}, which is not below it"))
        .collect()
}

/// The lines of one section of a manifest.
fn section<'a>(manifest: &'a str, name: &str) -> &'a str {
    let header = format!("[{name}]");
    let mut from = None;
    let mut at = 0;
    for line in manifest.split_inclusive('\n') {
        if from.is_some() && line.starts_with('[') {
            break;
        }
        at += line.len();
        if line.trim() == header {
            from = Some(at);
        }
    }
    &manifest[from.unwrap_or(at)..at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_offender() {
        let toml = "[dependencies]\nlvault-api.workspace = true\nserde = \"1\"\n\
                    [dev-dependencies]\nlvault-node.workspace = true\n";
        assert_eq!(border("core", toml, &[]), ["crates/core depends on crates/api, which is not below it"]);
        assert!(border("controller", toml, &["api"]).is_empty());
        assert!(lints("core", toml).is_some());
        assert!(lints("core", "[lints]\nworkspace = true\n[dependencies]\n").is_none());
        assert!(lints("core", "[lints]\n[package]\nworkspace = true\n").is_some());
    }
}
