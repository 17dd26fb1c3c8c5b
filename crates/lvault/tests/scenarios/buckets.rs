//! A bucket of a real S3 server, one of a server that speaks as Google does, or a container of a real server of Azure's, as the storage: from the command line to the
//! restored files, and an executor that is killed while it uploads.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use lvault_api::Phase;
use lvault_faults::azure::{ACCOUNT, AzureServer, CONTAINER};
use lvault_faults::gcs::GcsServer;
use lvault_faults::s3::{BUCKET, Mishap, Proxy, S3Key, S3Server};

use crate::data::{Tree, fill};
use crate::process::{command, until};
use crate::world::{Engine, World};

/// Adds the storage `main` in a bucket; answers with what the command line printed, or said why not.
pub(crate) fn add(world: &World, endpoint: &str, key: &S3Key) -> Result<String, String> {
    let (password, keys) = (world.root().join("password"), world.root().join("keys"));
    let lines: Vec<String> = key.environment().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    fs::write(&keys, lines.concat()).unwrap();
    let (password, keys) = (password.display().to_string(), keys.display().to_string());
    let place = ["storage", "add", "main", "--s3", BUCKET, "--endpoint", endpoint, "--prefix", "some/where"];
    let more = ["--credentials", &keys, "--password-file", &password, "--wait", "--timeout", "120s"];
    let output = world.cli(&[&place[..], &more].concat());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Nobody was shown a key.
fn assert_kept_secret(world: &World, key: &S3Key, said: &str) {
    for secret in [Some(&key.key), key.token.as_ref()].into_iter().flatten() {
        assert!(!said.contains(secret) && !world.log().contains(secret) && !world.story().contains(secret));
    }
}

/// Plain restic has nothing to complain about.
fn check(world: &World, server: &S3Server) {
    let mut restic = command("restic");
    let at = format!("s3:{}/{BUCKET}/some/where/default/data", server.endpoint());
    restic.args(["--no-cache", "-r", &at, "check", "--read-data"]).envs(server.key.environment());
    let checked = restic.env("RESTIC_PASSWORD_FILE", world.root().join("password")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_bucket_from_the_command_line_to_the_restored_files() {
    let (world, server) = (World::new(Engine::Directory), S3Server::start(7));
    let data = world.volume("data");
    fill(&data, 40, 4);
    let wrong = S3Key { key: "0".repeat(40), ..server.key.clone() };
    let said = add(&world, &server.endpoint(), &wrong).unwrap_err();
    assert!(said.contains("secret key does not belong") && said.contains("storage check"), "{said}");
    assert_kept_secret(&world, &wrong, &said);
    world.ok(&["storage", "delete", "main"]);
    world.ask(async |client| {
        let secrets: Api<Secret> = Api::namespaced(client, "default");
        secrets.delete("main", &DeleteParams::default()).await.map(drop).expect("the Secret of the storage");
    });
    let said = add(&world, &server.endpoint(), &server.key).unwrap();
    assert_kept_secret(&world, &server.key, &said);
    assert!(world.ok(&["storage", "list"]).contains(&format!("{}/{BUCKET}", server.endpoint())));

    let before = Tree::of(&data);
    world.snapshot("s1", "data", &["--wait", "--timeout", "120s"]);
    world.ok(&["restore", "r1", "--from", "s1", "--wait", "--timeout", "120s"]);
    before.assert_same(&Tree::of(&PathBuf::from(world.ok(&["volume", "path", "r1"]))));
    check(&world, &server);
    assert_kept_secret(&world, &server.key, "");
    world.finish();
}

#[test]
fn an_executor_killed_while_it_uploads() {
    let (world, server) = (World::new(Engine::Directory), S3Server::start(7));
    let proxy = Proxy::start(server.port);
    let data = world.volume("data");
    fill(&data, 41, 24);
    add(&world, &proxy.endpoint(), &server.key).unwrap();
    let is_upload = |method: &str, path: &str| method == "PUT" && path.contains("/data/");
    proxy.plan(move |asked| is_upload(&asked.method, &asked.path).then_some(Mishap::Delay(Duration::from_secs(2))));
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor(&uid);
    until("an upload", || proxy.log().iter().any(|(it, _)| is_upload(&it.method, &it.path)).then_some(()));
    assert!(executor.process.kill());
    proxy.plan(|_| None);
    let done = world.phase("s1", 1, Phase::Succeeded);
    assert_eq!(done.executor.and_then(|executor| executor.lost), Some(1));
    world.ok(&["restore", "r1", "--from", "s1", "--wait", "--timeout", "120s"]);
    Tree::of(&data).assert_same(&Tree::of(&PathBuf::from(world.ok(&["volume", "path", "r1"]))));
    world.finish();
}

#[test]
fn a_container_from_the_command_line_to_the_restored_files() {
    let (world, server) = (World::new(Engine::Directory), AzureServer::start());
    let data = world.volume("data");
    fill(&data, 42, 4);
    let (password, keys) = (world.root().join("password"), world.root().join("keys"));
    fs::write(&keys, format!("AZURE_ACCOUNT_NAME={ACCOUNT}\nAZURE_ACCOUNT_KEY={}\n", server.key)).unwrap();
    let (password, keys) = (password.display().to_string(), keys.display().to_string());
    let place = ["storage", "add", "main", "--azure", CONTAINER, "--endpoint", &server.endpoint(), "--prefix", "some"];
    let more = ["--credentials", &keys, "--password-file", &password, "--wait", "--timeout", "120s"];
    world.ok(&[&place[..], &more].concat());
    let before = Tree::of(&data);
    world.snapshot("s1", "data", &["--wait", "--timeout", "120s"]);
    world.ok(&["restore", "r1", "--from", "s1", "--wait", "--timeout", "120s"]);
    before.assert_same(&Tree::of(&PathBuf::from(world.ok(&["volume", "path", "r1"]))));
    assert!(!world.log().contains(&server.key) && !world.story().contains(&server.key));
    let copy = world.root().join("copy");
    server.download("some/default/data/", &copy);
    fs::create_dir_all(copy.join("locks")).unwrap();
    let mut restic = command("restic");
    restic.args(["--no-cache", "-r"]).arg(&copy).args(["check", "--read-data"]);
    let checked = restic.env("RESTIC_PASSWORD_FILE", world.root().join("password")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    world.finish();
}

#[test]
fn a_bucket_of_googles_from_the_command_line_to_the_restored_files() {
    let (world, server) = (World::new(Engine::Directory), GcsServer::start(7));
    let data = world.volume("data");
    fill(&data, 43, 4);
    let (password, key) = (world.root().join("password"), world.root().join("service-account.json"));
    fs::write(&key, &server.key).unwrap();
    let (password, key) = (password.display().to_string(), key.display().to_string());
    let place = ["storage", "add", "main", "--gcs", BUCKET, "--endpoint", &server.endpoint(), "--prefix", "some/where"];
    let more = ["--credentials", &key, "--password-file", &password, "--wait", "--timeout", "120s"];
    world.ok(&[&place[..], &more, &["--limit-download", "100000"]].concat());
    let before = Tree::of(&data);
    world.snapshot("s1", "data", &["--wait", "--timeout", "120s"]);
    world.ok(&["restore", "r1", "--from", "s1", "--wait", "--timeout", "120s"]);
    before.assert_same(&Tree::of(&PathBuf::from(world.ok(&["volume", "path", "r1"]))));
    let key: serde_json::Value = serde_json::from_str(&server.key).unwrap();
    let line = key["private_key"].as_str().unwrap().lines().nth(3).unwrap();
    assert!(!world.log().contains(line) && !world.story().contains(line), "somebody was shown a key");
    check(&world, &server.s3);
    world.finish();
}
