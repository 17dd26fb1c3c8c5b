//! The only place that prints. Results go to standard output, everything else to standard error.
//!
//! A reader that has gone (`lvault get | head -1`) is no error: what it does not want is not printed.

use std::io::{self, IsTerminal, Write};

use crate::error::CliError;

/// Prints a result, with a newline where it has none.
pub fn result(text: &str) {
    put(&mut io::stdout().lock(), text);
}

/// Prints what happens meanwhile, on standard error.
pub fn note(text: &str) {
    put(&mut io::stderr().lock(), text);
}

/// Prints an error and what to do about it.
pub fn error(error: &CliError) {
    note(&format!("error: {error}\n  help: {}", error.remedy()));
}

/// Whether notes are read by a person who sees a bar move.
pub fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

fn put(to: &mut impl Write, text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    // The reader may have closed its end; there is nobody left to tell.
    let _ = write!(to, "{text}{end}").and_then(|()| to.flush());
}
