//! Running cases and saying how it went.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};

use crate::ground::{Case, Needs};
use crate::server::Server;

/// A case that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(240);

/// How many cases run at a time against one server.
const AT_ONCE: usize = 8;

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What the page says is what the server does.
    Passed,
    /// The server lacks what the case needs; this is it.
    LeftOut(&'static str),
    /// It is not; why stands in the output above.
    Failed,
}

/// Runs one case, and prints its name, its page and how it went.
pub async fn run_one(server: &Server, case: &Case) -> Verdict {
    let verdict = match missing(server, case).await {
        Some(what) => Verdict::LeftOut(what),
        None => judge(server, case).await,
    };
    let name = case.name.trim_start_matches("lvault_conformance::");
    let said = match &verdict {
        Verdict::Passed => String::from("ok"),
        Verdict::LeftOut(what) => format!("LEFT OUT: {what}"),
        Verdict::Failed => String::from("FAILED"),
    };
    println!("{name}: {said} [{}]", case.page);
    verdict
}

async fn missing(server: &Server, case: &Case) -> Option<&'static str> {
    match case.needs {
        Needs::Api => None,
        Needs::Controllers => (!server.has_controllers()).then_some("no controller manager runs beside this server"),
        Needs::Strangers => (!server.has_strangers()).then_some("in the same process everybody is the owner"),
        Needs::Apply => (!server.applies().await).then_some("this server refuses server-side apply with 415"),
    }
}

async fn judge(server: &Server, case: &Case) -> Verdict {
    let ground = server.ground().await;
    let work = AssertUnwindSafe((case.run)(ground)).catch_unwind();
    match tokio::time::timeout(LONGEST, work).await {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(_panic)) => Verdict::Failed,
        Err(_elapsed) => {
            println!("{} took longer than {LONGEST:?}", case.name);
            Verdict::Failed
        }
    }
}

/// Runs several cases, some at a time; answers each with how it went.
pub async fn run_all(server: &Server, cases: Vec<&'static Case>) -> Vec<(&'static Case, Verdict)> {
    let running = cases.into_iter().map(|case| async move { (case, run_one(server, case).await) });
    futures::stream::iter(running).buffered(AT_ONCE).collect().await
}
