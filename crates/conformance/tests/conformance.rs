//! Each case is a test of its own, over both transports of the embedded server; with `LVAULT_TEST_KUBECONFIG` set, all of
//! them are one test, against that server, which is left as it was found. `LVAULT_TEST_CASES=text` picks cases by name.
//!
//! A harness of its own, because which tests there are depends on the environment. It understands what cargo test and
//! cargo nextest say to a test binary.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test harness talks to whoever runs it")]

use std::process::ExitCode;

use lvault_conformance::{Case, Server, Transport, Verdict, cases, run_all, run_one};

const NAMED: &str = "LVAULT_TEST_KUBECONFIG";
const PICKED: &str = "LVAULT_TEST_CASES";

/// A test: some cases on one server.
struct Test {
    name: String,
    transport: Transport,
    cases: Vec<&'static Case>,
}

fn tests() -> Vec<Test> {
    if let Some(kubeconfig) = std::env::var_os(NAMED) {
        let picked = std::env::var(PICKED).unwrap_or_default();
        let cases = cases().into_iter().filter(|case| case.name.contains(&picked)).collect();
        return vec![Test {
            name: String::from("named_server"),
            transport: Transport::Named(kubeconfig.into()),
            cases,
        }];
    }
    let transports = [("process", Transport::Process), ("tls", Transport::Tls)];
    let each = transports.iter().flat_map(|(prefix, transport)| {
        cases().into_iter().map(move |case| Test {
            name: format!("{prefix}::{}", case.name.trim_start_matches("lvault_conformance::")),
            transport: transport.clone(),
            cases: vec![case],
        })
    });
    each.collect()
}

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    list: bool,
    ignored: bool,
    exact: bool,
    names: Vec<String>,
    skipped: Vec<String>,
}

fn asked() -> Asked {
    let mut asked = Asked::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => asked.list = true,
            "--ignored" => asked.ignored = true,
            "--exact" => asked.exact = true,
            "--skip" => asked.skipped.extend(words.next()),
            "--format" | "--test-threads" | "--color" | "-Z" | "--logfile" | "--report-time" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            _ => asked.names.push(word),
        }
    }
    asked
}

impl Asked {
    fn wants(&self, test: &Test) -> bool {
        let fits = |text: &String| if self.exact { test.name == *text } else { test.name.contains(text.as_str()) };
        !self.ignored && (self.names.is_empty() || self.names.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

async fn run(test: &Test) -> Vec<String> {
    let server = Server::open(&test.transport).await;
    let verdicts = match test.cases.as_slice() {
        [only] => vec![(*only, run_one(&server, only).await)],
        several => run_all(&server, several.to_vec()).await,
    };
    server.close().await;
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, verdict)| wanted(verdict)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed));
    let left_out = count(|verdict| matches!(verdict, Verdict::LeftOut(_)));
    println!("{}: {passed} of {} cases passed, {left_out} left out", test.name, verdicts.len());
    let failed = verdicts.into_iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed));
    failed.map(|(case, _)| format!("{}: {}", test.name, case.name)).collect()
}

fn main() -> ExitCode {
    let asked = asked();
    let wanted: Vec<Test> = tests().into_iter().filter(|test| asked.wants(test)).collect();
    if asked.list {
        for test in &wanted {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = Vec::new();
    for test in &wanted {
        failed.extend(runtime.block_on(run(test)));
    }
    // In the words of cargo test, for whoever reads its summaries.
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} tests, {} failed cases", wanted.len(), failed.len());
    for case in &failed {
        println!("    {case}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
