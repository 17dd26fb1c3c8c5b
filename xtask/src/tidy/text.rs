//! Rules about the text of single files.

use std::path::Path;

/// A Rust file longer than this wants to be two.
const MAX_LINES: usize = 500;

/// What stands nowhere, and why. Each is put together here so that this file keeps its own rule.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "finish it, or open an issue"),
    (concat!("FIX", "ME"), "finish it, or open an issue"),
    (concat!("todo", "!("), "finish it"),
    (concat!("unimplemented", "!("), "finish it"),
    (concat!("#[ig", "nore]"), "a test that does not run proves nothing: say what runs it, or remove it"),
    (concat!("/ho", "me/"), "a path of one machine: write one that every machine has"),
    (concat!("/ro", "ot/"), "a path of one machine: write one that every machine has"),
    (concat!("/wo", "rk/"), "a path of one machine: write one that every machine has"),
    (concat!("<<<", "<<<< "), "a conflict that was not resolved"),
];

/// Lines that hold what stands nowhere.
pub(super) fn forbidden(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (word, remedy) in FORBIDDEN.iter().filter(|(word, _)| holds(line, word)) {
            wrong.push(format!("{name}:{}: '{word}': {remedy}", number + 1));
        }
    }
    wrong
}

/// A path counts where it begins, not in the middle of a longer one (`/var/home/`).
fn holds(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !word.starts_with('/') || !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}'))
    })
}

/// A Rust file says first what it is for.
pub(super) fn header(name: &str, text: &str) -> Option<String> {
    let missing = !text.starts_with("//!");
    missing.then(|| format!("{name}: the file does not begin with `//!` lines that say what it is for"))
}

/// A Rust file is short enough to be read.
pub(super) fn length(name: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let limit = if name.ends_with("lvault/src/main.rs") { 30 } else { MAX_LINES };
    (lines > limit).then(|| format!("{name}: {lines} lines, at most {limit}: divide it by topic"))
}

/// Every relative link of a Markdown file leads to a file.
pub(super) fn links(name: &str, text: &str, path: &Path) -> Vec<String> {
    let folder = path.parent().unwrap_or(path);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with(['#', '<']) && !target.is_empty())
        .filter(|target| !folder.join(target.split('#').next().unwrap_or_default()).exists())
        .map(|target| format!("{name}: the link to '{target}' leads nowhere"))
        .collect()
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
        assert!(length("crates/lvault/src/main.rs", &"//!\n".repeat(30)).is_none());
    }

    #[test]
    fn every_forbidden_word_is_found_and_named_with_its_line() {
        for (word, remedy) in FORBIDDEN {
            assert_eq!(forbidden("a.md", &format!("fine\nsee {word}x\n")), [format!("a.md:2: '{word}': {remedy}")]);
        }
        assert!(forbidden("a.md", "the framework/crates, /var/home/x and $HOME/x\n").is_empty());
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.md");
        std::fs::write(&path, "").expect("the file");
        let text = "[self](a.md#part) [web](https://x.y/z) [anchor](#part) [gone](b.md)";
        assert_eq!(links("a.md", text, &path), ["a.md: the link to 'b.md' leads nowhere"]);
    }
}
