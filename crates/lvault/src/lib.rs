//! Node-local volumes whose online snapshots are copied off the node exactly once: the command line and its wiring.
//!
//! What holds in this crate:
//! - It only wires: rules, engines, repositories and reconcilers live in the crates below.
//! - Every command but `up`, `demo`, `node`, `state` and the executor speaks to a Kubernetes API, the embedded one or another, and to
//!   nothing else.
//! - What a user writes is read once, in [`names`], before anything is written anywhere.
//! - Only [`say`] prints; every error says what was tried, what happened and what to do next.

pub mod args;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod cores;
pub mod demo;
pub mod error;
pub mod follow;
pub mod names;
pub mod objects;
pub mod output;
mod processes;
pub mod progress;
pub mod say;
pub mod server;
pub mod state;
#[cfg(test)]
mod testing;
pub mod up;
pub mod why;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, Place};
use error::CliError;
use server::Server;

/// The whole program: reads the command line, does it, and answers with the exit code.
pub fn main() -> ExitCode {
    cores::forbid();
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            say::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { place, command } = cli;
    match command {
        Command::Version => say::result(&format!("lvault {}", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lvault", &mut script);
            say::result(&String::from_utf8_lossy(&script));
        }
        // It has a runtime of its own, and its task on standard input.
        Command::Executor => {
            log("info");
            cores::tell();
            return Ok(lvault_executor::main());
        }
        Command::Up(args) => {
            log("info");
            cores::tell();
            runtime()?.block_on(up::run(&place, args))?;
        }
        Command::Node(args) => {
            log("info");
            cores::tell();
            runtime()?.block_on(cluster::node::run(&place, args))?;
        }
        Command::Controller(args) => {
            log("info");
            cores::tell();
            runtime()?.block_on(cluster::controller::run(&place, args))?;
        }
        Command::Demo(args) => {
            log("warn");
            runtime()?.block_on(demo::run(&place, args))?;
        }
        Command::Volume(command) => ask(&place, async |server| command::volume::run(server, command).await)?,
        Command::Snapshot(command) => ask(&place, async |server| command::snapshot::run(server, command).await)?,
        Command::Restore(args) => ask(&place, async |server| command::restore::run(server, args).await)?,
        Command::Storage(command) => ask(&place, async |server| command::storage::run(server, command).await)?,
        Command::Get(args) => ask(&place, async |server| command::get::run(server, args).await)?,
        Command::State(command) => {
            log("warn");
            command::state::run(&place, &command)?;
        }
        Command::Why(args) => ask(&place, async |server| why::run(server, &args.name).await)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command that speaks to a server.
fn ask(place: &Place, command: impl AsyncFnOnce(&Server) -> Result<(), CliError>) -> Result<(), CliError> {
    log("warn");
    runtime()?.block_on(async {
        let server = Server::connect(place).await?;
        command(&server).await
    })
}

fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| CliError::Server {
        tried: "starting the runtime",
        happened: error.to_string(),
        remedy: "see whether this user may start threads (ulimit -u)".to_owned(),
    })
}

/// Log lines go to standard error; `LVAULT_LOG` says which.
fn log(usual: &str) {
    let filter = EnvFilter::try_from_env("LVAULT_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let subscriber = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).with_target(false);
    let subscriber = subscriber.with_ansi(say::on_terminal());
    // A second call in one process finds the first one's subscriber, which is as good.
    let _ = subscriber.try_init();
}
