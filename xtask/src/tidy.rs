//! Rules of the repository that no compiler checks.

mod corpus;
mod manifest;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

/// Checks every rule; all that is wrong is said at once.
pub(crate) fn check() -> Result<String, String> {
    check_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

fn check_tree(root: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut wrong = Vec::new();
    let (mut rust, mut others) = (0, 0);
    for path in &files {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let Kind::Text { is_rust } = kind(path) else { continue };
        let text = fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))?;
        wrong.extend(text::forbidden(&name, &text));
        if is_rust {
            rust += 1;
            wrong.extend(text::header(&name, &text));
            wrong.extend(text::length(&name, &text));
        } else {
            others += 1;
        }
        if name.ends_with(".md") {
            wrong.extend(text::links(&name, &text, path));
        }
    }
    wrong.extend(manifest::check(root)?);
    wrong.extend(corpus::check(root)?);
    if wrong.is_empty() {
        Ok(format!("{rust} Rust files and {others} others keep the rules"))
    } else {
        Err(wrong.join("\n"))
    }
}

enum Kind {
    Text { is_rust: bool },
    Other,
}

/// Which files are read: those that people write.
fn kind(path: &Path) -> Kind {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match (extension, name) {
        ("rs", _) => Kind::Text { is_rust: true },
        ("md" | "toml" | "yaml" | "yml" | "sh" | "snap" | "txt", _) | (_, "Makefile" | "run") => {
            Kind::Text { is_rust: false }
        }
        _ => Kind::Other,
    }
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if !matches!(name, "target" | ".git") {
                collect(&path, into)?;
            }
        } else {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_tree_is_read_and_everything_wrong_is_said_at_once() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            fs::write(path, text).expect("the file");
        };
        for name in manifest::crates() {
            write(&format!("crates/{name}/Cargo.toml"), "[lints]\nworkspace = true\n[dependencies]\n");
        }
        write("xtask/Cargo.toml", "[lints]\nworkspace = true\n[dependencies]\n");
        write("target/left.rs", "not looked at");
        write("crates/core/src/lib.rs", "//! Fine.\n");
        assert_eq!(check_tree(root.path()).as_deref(), Ok("1 Rust files and 14 others keep the rules"));

        write("crates/core/src/a.rs", "fn a() {}\n");
        write("docs/b.md", "[gone](gone.md)\n");
        let wrong = check_tree(root.path()).expect_err("two rules are broken");
        assert_eq!(wrong.lines().count(), 2, "{wrong}");
        assert!(wrong.contains("crates/core/src/a.rs") && wrong.contains("gone.md"), "{wrong}");
    }
}
