//! The file: what was acknowledged is there, whatever happened; what is no file of ours is left alone.

use std::fs;
use std::path::{Path, PathBuf};

use lvault_apiserver::{ApiServer, Config, OpenError};
use serde_json::{Value, json};

use crate::setup::{BOXES, Http, THINGS, box_of, client, kinds, names, open_file, thing};

fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("store.redb");
    (folder, file)
}

async fn refusal(file: &Path) -> String {
    let error = ApiServer::open(Config::in_file(file, kinds())).await.expect_err("refused");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    assert!(matches!(error, OpenError::File(_)), "{text}");
    assert!(text.contains(file.to_str().expect("text")), "the file is named: {text}");
    text
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (_folder, file) = store();
    let server = open_file(&file).await;
    let http = Http(client(&server));
    http.post(THINGS, &thing("a")).await.expect(201);
    let b = http.post(THINGS, &thing("b")).await.expect(201);
    http.delete(&format!("{THINGS}/a"), &Value::Null).await.expect(200);
    let revision = http.revision().await;
    server.close().await;
    server.close().await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds Secrets");
    http.post(THINGS, &thing("late")).await.refused(503, "ServiceUnavailable");

    let server = open_file(&file).await;
    let http = Http(client(&server));
    assert_eq!(http.revision().await, revision, "opening writes nothing");
    let list = http.get(THINGS).await.expect(200);
    assert_eq!(list["items"], json!([b]));
    let c = http.post(THINGS, &thing("c")).await.expect(201);
    assert_eq!(c["metadata"]["resourceVersion"], (revision + 1).to_string());
    server.close().await;
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let (_folder, file) = store();
    let server = open_file(&file).await;
    assert!(refusal(&file).await.contains("already open"));
    Http(client(&server)).post(THINGS, &thing("a")).await.expect(201);
    server.close().await;
    open_file(&file).await.close().await;
}

#[tokio::test]
async fn what_is_no_store_is_named_and_left_alone() {
    let (folder, file) = store();
    let server = open_file(&file).await;
    let http = Http(client(&server));
    for index in 0..50 {
        http.post(BOXES, &box_of(&format!("b{index}"))).await.expect(201);
    }
    server.close().await;
    let whole = fs::read(&file).expect("read");
    let foreign = folder.path().join("foreign");
    let database = redb::Database::create(&foreign).expect("another database");
    drop(database);
    let foreign = fs::read(&foreign).expect("read");
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        (String::from("text"), b"hello, I am no database\n".repeat(500)),
        (String::from("zeros"), vec![0; 8192]),
        (String::from("another program's"), foreign),
    ];
    for length in [0, 1, 64, 511, 512, 4096, 8192, 40_000, whole.len() / 2, whole.len() - 4096] {
        cases.push((format!("cut at {length}"), whole.get(..length).expect("shorter").to_vec()));
    }
    for (what, content) in cases {
        fs::write(&file, &content).expect("written");
        let text = refusal(&file).await;
        let expected = match (what.as_str(), content.len()) {
            (_, 0) => "it was truncated",
            ("another program's", _) => "not a file of this",
            (_, _) => "damaged",
        };
        assert!(text.contains(expected), "{what}: {text}");
        assert!(fs::read(&file).expect("read") == content, "{what}: left as it was");
    }
    fs::write(&file, &whole).expect("written");
    let server = open_file(&file).await;
    assert_eq!(names(&Http(client(&server)).get(BOXES).await.expect(200)).len(), 50);
    server.close().await;
}

/// Whichever byte is changed: either all is there, or the file is called damaged.
#[tokio::test]
async fn a_changed_byte_is_found_or_harmless() {
    let (_folder, file) = store();
    let server = open_file(&file).await;
    let http = Http(client(&server));
    for index in 0..200 {
        let mut object = box_of(&format!("b{index}"));
        object["spec"]["filling"] = Value::from("x".repeat(500));
        http.post(BOXES, &object).await.expect(201);
    }
    let before = http.get(BOXES).await.expect(200)["items"].clone();
    server.close().await;
    let whole = fs::read(&file).expect("read");
    let (mut refused, mut opened) = (0, 0);
    // Every field of the header, then places all over the pages.
    let places = (0..320).chain((320..whole.len()).step_by(2003));
    for place in places {
        let mut changed = whole.clone();
        changed[place] ^= 0x41;
        fs::write(&file, &changed).expect("written");
        match ApiServer::open(Config::in_file(&file, kinds())).await {
            Err(error) => {
                assert!(matches!(error, OpenError::File(_)), "{error:?}");
                refused += 1;
            }
            Ok(server) => {
                let found = Http(client(&server)).get(BOXES).await.expect(200)["items"].clone();
                assert!(found == before, "byte {place}: the file was opened, and something is missing");
                server.close().await;
                opened += 1;
            }
        }
    }
    assert!(refused > 20 && opened > 0, "refused {refused}, opened {opened}");
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let (_folder, file) = store();
    open_file(&file).await.close().await;
    let database = redb::Database::open(&file).expect("opens");
    let write = database.begin_write().expect("begins");
    {
        let mut meta = write.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta")).expect("a table");
        meta.insert("format", b"embedded-kubernetes-api 2".as_slice()).expect("written");
    }
    write.commit().expect("committed");
    drop(database);
    assert!(refusal(&file).await.contains("newer version"));
}

/// Objects of kinds that are no longer registered stay where they are.
#[tokio::test]
async fn unregistered_kinds_are_kept() {
    let (_folder, file) = store();
    let server = open_file(&file).await;
    Http(client(&server)).post(THINGS, &thing("a")).await.expect(201);
    server.close().await;
    let bare = ApiServer::open(Config::in_file(&file, Vec::new())).await.expect("opens");
    let http = Http(client(&bare));
    http.get(THINGS).await.refused(404, "NotFound");
    http.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.expect(201);
    bare.close().await;
    let server = open_file(&file).await;
    Http(client(&server)).get(&format!("{THINGS}/a")).await.expect(200);
    server.close().await;
}
