//! The real kubectl against the port.
//!
//! Holds: without kubectl these cases fail and say what to install, unless LVAULT_WITHOUT_KUBECTL=1 says that this is meant.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lvault_apiserver::ApiServer;
use serde_json::Value;

use crate::programs::{Ended, command};
use crate::setup::{Listening, bounded, in_memory};

/// kubectl with the kubeconfig of one server.
#[derive(Clone)]
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) minor: u32,
}

/// What a run printed.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) well: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn find() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join("kubectl")).find(|file| file.is_file());
    if found.is_none() && std::env::var("LVAULT_WITHOUT_KUBECTL").as_deref() == Ok("1") {
        println!("skipped: no kubectl on PATH, and LVAULT_WITHOUT_KUBECTL=1");
        return None;
    }
    let missing = "kubectl is not on PATH. Install it (Debian, Ubuntu: `apt-get install kubernetes-client`, or the binary \
                   from https://kubernetes.io/docs/tasks/tools/), or set LVAULT_WITHOUT_KUBECTL=1 to leave these tests out";
    Some(found.expect(missing))
}

impl Kubectl {
    fn new(program: PathBuf, listening: &Listening) -> Kubectl {
        let home = listening.folder.path().join("home");
        std::fs::create_dir_all(&home).expect("a home");
        let mut kubectl = Kubectl { program, kubeconfig: listening.write_kubeconfig(), home, minor: 0 };
        let version: Value =
            serde_json::from_str(&kubectl.run(&["version", "--client", "-o", "json"]).ok()).expect("JSON");
        let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
        kubectl.minor = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
        kubectl
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.program);
        command.env_clear().env("HOME", &self.home).env("KUBECONFIG", &self.kubeconfig).env("PATH", "/usr/bin:/bin");
        command.arg("--request-timeout=20s").args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Run { well: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Run {
    pub(crate) fn ok(self) -> String {
        assert!(self.well, "{self:?}");
        self.out
    }

    pub(crate) fn fails(self, with: &str) {
        assert!(!self.well && self.err.contains(with), "{self:?}");
    }
}

/// Runs the case in a thread of its own, for kubectl blocks.
pub(crate) async fn with_kubectl(case: fn(&Kubectl)) {
    let Some(program) = find() else {
        return;
    };
    let server: ApiServer = in_memory().await;
    let listening = Listening::start(&server).await;
    let kubectl = Kubectl::new(program, &listening);
    bounded("the case", tokio::task::spawn_blocking(move || case(&kubectl))).await.expect("the case holds");
    listening.stop().await;
}

const THING: &str = "apiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: NAME\nspec:\n  size: 1Gi\n";

pub(crate) fn manifest(name: &str) -> String {
    THING.replace("NAME", name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_made_shown_changed_and_removed() {
    with_kubectl(|kubectl| {
        assert_eq!(kubectl.run_with(&["create", "-f", "-"], &manifest("a")).ok(), "thing.example.com/a created\n");
        kubectl.run_with(&["create", "-f", "-"], &manifest("a")).fails("AlreadyExists");
        let table = kubectl.run(&["get", "things"]).ok();
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(lines.next(), Some(vec!["NAME", "SIZE", "COUNT", "PHASE", "AGE"]));
        assert_eq!(lines.next().expect("a row").get(..2), Some(&["a", "1Gi"][..]));
        assert!(kubectl.run(&["get", "th", "-o", "wide"]).ok().contains("COMMENT"));
        assert_eq!(kubectl.run(&["get", "thing/a", "-o", "jsonpath={.spec.mode}"]).ok(), "rw");
        let all = kubectl.run(&["get", "all", "-o", "name"]).ok();
        assert_eq!(all, "thing.example.com/a\n", "the category is known");
        kubectl.run(&["get", "thing", "b"]).fails("Error from server (NotFound): things.example.com \"b\" not found");

        kubectl.run(&["label", "thing", "a", "x=y"]).ok();
        kubectl.run(&["annotate", "thing", "a", "note=some text"]).ok();
        assert_eq!(kubectl.run(&["get", "things", "-l", "x=y", "-o", "name"]).ok(), "thing.example.com/a\n");
        assert_eq!(kubectl.run(&["get", "things", "-l", "x!=y", "-o", "name"]).ok(), "");
        kubectl.run(&["patch", "thing", "a", "--type=merge", "-p", "{\"spec\":{\"count\":3}}"]).ok();
        kubectl
            .run(&[
                "patch",
                "thing",
                "a",
                "--type=json",
                "-p",
                "[{\"op\":\"test\",\"path\":\"/spec/count\",\"value\":3}]",
            ])
            .ok();
        kubectl.run(&["patch", "thing", "a", "-p", "{\"spec\":{\"count\":4}}"]).fails("is not supported");
        kubectl
            .run(&["patch", "thing", "a", "--type=merge", "-p", "{\"spec\":{\"count\":77}}"])
            .fails("is invalid: spec.count");
        let described = kubectl.run(&["describe", "thing", "a"]).ok();
        for part in ["Name:         a", "Labels:       x=y", "Count:  3", "Events:"] {
            assert!(described.contains(part), "{part}: {described}");
        }
        assert_eq!(kubectl.run(&["delete", "thing", "a"]).ok(), "thing.example.com \"a\" deleted\n");
        kubectl.run(&["delete", "thing", "a"]).fails("NotFound");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_applied() {
    with_kubectl(|kubectl| {
        let first = manifest("a");
        assert_eq!(kubectl.run_with(&["apply", "-f", "-"], &first).ok(), "thing.example.com/a created\n");
        assert_eq!(kubectl.run_with(&["apply", "-f", "-"], &first).ok(), "thing.example.com/a unchanged\n");
        let second = first.replace("1Gi", "2Gi") + "  count: 5\n";
        assert_eq!(kubectl.run_with(&["apply", "-f", "-"], &second).ok(), "thing.example.com/a configured\n");
        assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size} {.spec.count}"]).ok(), "2Gi 5");
        kubectl.run_with(&["apply", "-f", "-"], &first).ok();
        assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size} {.spec.count}"]).ok(), "1Gi ");
        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  a: one\n";
        kubectl.run_with(&["apply", "-f", "-"], secret).ok();
        kubectl.run_with(&["apply", "-f", "-"], &secret.replace("one", "two")).ok();
        assert_eq!(kubectl.run(&["get", "secret", "s", "-o", "jsonpath={.data.a}"]).ok(), "dHdv");
        if kubectl.minor >= 25 {
            let odd = first + "  odd: 1\n";
            kubectl.run_with(&["apply", "-f", "-"], &odd).fails("unknown field \"spec.odd\"");
        } else {
            println!("skipped: kubectl 1.{} cannot ask the server about unknown fields", kubectl.minor);
        }
        assert_eq!(kubectl.run(&["delete", "things", "--all"]).ok(), "thing.example.com \"a\" deleted\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_patched_and_waited_for() {
    with_kubectl(|kubectl| {
        kubectl.run_with(&["create", "-f", "-"], &manifest("a")).ok();
        if kubectl.minor < 24 {
            println!("skipped: kubectl 1.{} has no --subresource", kubectl.minor);
            return;
        }
        let patch = |phase: &str| {
            let body = format!("{{\"status\":{{\"phase\":\"{phase}\"}}}}");
            kubectl.run(&["patch", "thing", "a", "--subresource=status", "--type=merge", "-p", &body])
        };
        patch("Pending").ok();
        let waiting = kubectl.clone();
        let waiter = std::thread::spawn(move || {
            waiting.run(&["wait", "thing/a", "--for=jsonpath={.status.phase}=Done", "--timeout=20s"])
        });
        patch("Running").ok();
        patch("Done").ok();
        assert_eq!(waiter.join().expect("waited").ok(), "thing.example.com/a condition met\n");
        patch("Running").fails("a terminal phase never changes");
        let finalizers = "{\"metadata\":{\"finalizers\":[\"example.com/hold\"]}}";
        kubectl.run(&["patch", "thing", "a", "--type=merge", "-p", finalizers]).ok();
        kubectl.run(&["delete", "thing", "a", "--wait=false"]).ok();
        let waiting = kubectl.clone();
        let waiter = std::thread::spawn(move || waiting.run(&["wait", "thing/a", "--for=delete", "--timeout=20s"]));
        kubectl.run(&["patch", "thing", "a", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"]).ok();
        waiter.join().expect("waited").ok();
        kubectl.run(&["get", "thing", "a"]).fails("NotFound");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_followed() {
    with_kubectl(|kubectl| {
        kubectl.run_with(&["create", "-f", "-"], &manifest("a")).ok();
        let mut child = Ended(kubectl.command(&["get", "things", "-w"]).spawn().expect("kubectl starts"));
        let output = BufReader::new(child.0.stdout.take().expect("its output"));
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let deadline = Instant::now() + Duration::from_secs(30);
        let wait_for = |word: &str| loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {word:?} came"));
            if line.contains(word) {
                return line;
            }
        };
        wait_for("NAME");
        wait_for("1Gi");
        kubectl.run(&["patch", "thing", "a", "--type=merge", "-p", "{\"spec\":{\"size\":\"7Gi\"}}"]).ok();
        assert!(wait_for("7Gi").starts_with('a'));
        kubectl.run_with(&["create", "-f", "-"], &manifest("second")).ok();
        wait_for("second");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_is_explained() {
    with_kubectl(|kubectl| {
        let resources = kubectl.run(&["api-resources", "--no-headers"]).ok();
        let thing = resources.lines().find(|line| line.starts_with("things ")).expect("things are listed");
        assert_eq!(thing.split_whitespace().collect::<Vec<_>>(), ["things", "th", "example.com/v1", "false", "Thing"]);
        assert!(kubectl.run(&["api-versions"]).ok().contains("coordination.k8s.io/v1\n"));
        assert!(kubectl.run(&["version"]).ok().contains("v1.33"));
        assert!(kubectl.run(&["get", "namespaces"]).ok().contains("Active"));
        if kubectl.minor >= 27 {
            let explained = kubectl.run(&["explain", "thing.spec.size"]).ok();
            assert!(explained.contains("How large it is."), "{explained}");
        } else {
            println!("skipped: kubectl 1.{} explains from OpenAPI v2, which is not served", kubectl.minor);
        }
        kubectl.run_with(&["create", "-f", "-"], &manifest("a")).ok();
        let uid = kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.metadata.uid}"]).ok();
        let event = "apiVersion: v1\nkind: Event\nmetadata: {name: e, namespace: default}\ninvolvedObject: {kind: Thing, \
                     name: a, uid: UID}\nreason: Started\nmessage: it began\ntype: Normal\n";
        kubectl.run_with(&["create", "-f", "-"], &event.replace("UID", &uid)).ok();
        assert!(kubectl.run(&["get", "events"]).ok().contains("it began"));
        let described = kubectl.run(&["describe", "thing", "a"]).ok();
        assert!(described.contains("it began"), "{described}");
        diff_and_edit(kubectl);
    })
    .await;
}

fn diff_and_edit(kubectl: &Kubectl) {
    let diff = kubectl.run_with(&["diff", "-f", "-"], &manifest("a").replace("1Gi", "3Gi"));
    assert!(!diff.well && diff.out.contains("+  size: 3Gi"), "{diff:?}");
    let editor = editor(&kubectl.home);
    let mut command = kubectl.command(&["edit", "thing", "a"]);
    let output = command.env("KUBE_EDITOR", editor).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size}"]).ok(), "4Gi");
}

/// An editor that changes 1Gi to 4Gi.
fn editor(home: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = home.join("editor");
    std::fs::write(&file, "#!/bin/sh\nsed -i s/1Gi/4Gi/ \"$1\"\n").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("runnable");
    file
}
