//! `cargo xtask <task>`: generated files and the repository's own rules.

mod bench;
mod crdgen;
mod image;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <task>

  crdgen          write the CRDs into deploy/crds
  crdgen --check  fail when deploy/crds is not what crdgen would write
  bench [PART]... measure what docs/BENCHMARKS.md reports (see `make bench`)
  image BINARY ARCHIVE
                  pack a binary and the programs it runs as an OCI image, without Docker
  tidy            check the repository's rules: file lengths, headers, crate borders
";

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["crdgen"] => crdgen::write(),
        ["crdgen", "--check"] => crdgen::check(),
        ["bench", parts @ ..] => bench::run(parts),
        ["image", rest @ ..] => image::write(rest),
        ["tidy"] => tidy::check(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
