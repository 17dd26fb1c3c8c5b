//! The lvault binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    lvault::main()
}
