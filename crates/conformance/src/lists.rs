//! Lists: order, pages, and which version of the world they show.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, concepts};
use crate::http::{names, version};

cases! {
    Api concepts {
        a_list_has_a_kind_and_a_version: "Collections",
        an_empty_list_has_no_items: "Collections",
        a_list_shows_every_acknowledged_write: "Semantics for get and list",
        a_list_comes_in_pages: "Retrieving large results sets in chunks",
        all_pages_show_one_moment: "Retrieving large results sets in chunks",
        a_page_says_how_many_remain: "Retrieving large results sets in chunks",
        with_a_selector_nobody_knows_how_many_remain: "Retrieving large results sets in chunks",
        a_limit_that_is_not_reached_ends_the_list: "Retrieving large results sets in chunks",
        a_continue_token_that_is_none_is_refused: "Retrieving large results sets in chunks",
        a_continue_token_excludes_a_version: "Retrieving large results sets in chunks",
        pages_of_a_selection_hold_what_is_selected: "Retrieving large results sets in chunks",
        a_list_not_older_than_a_version_shows_it: "Semantics for get and list",
        a_list_at_exactly_a_version_shows_that_moment: "Semantics for get and list",
        a_list_of_any_version_is_taken: "Semantics for get and list",
        an_object_not_older_than_a_version_is_shown: "Semantics for get and list",
        a_version_to_come_times_out: "Semantics for get and list",
        matching_needs_a_version: "Semantics for get and list",
        an_unknown_matching_is_refused: "Semantics for get and list",
        a_version_that_is_none_is_refused: "Resource versions",
        an_old_version_is_shown_or_gone: "410 Gone responses",
    }
}

async fn some(g: &Ground, names: &[&str]) {
    for name in names {
        g.create(name, &json!({"size": 1})).await;
    }
}

async fn list(g: &Ground, query: &str) -> Value {
    g.http.get(&format!("{}?{query}", g.widgets())).await.expect(200)
}

async fn a_list_has_a_kind_and_a_version(g: Ground) {
    some(&g, &["b", "a", "c"]).await;
    let found = list(&g, "").await;
    assert_eq!((&found["kind"], &found["apiVersion"]), (&json!("WidgetList"), &json!(format!("{}/v1", g.group))));
    assert_eq!(names(&found), ["a", "b", "c"], "in the order of names");
    assert!(!version(&found).is_empty());
    assert_eq!(found["items"][0]["kind"], "Widget");
    assert_eq!(found["items"][0], g.http.get(&g.at("a")).await.expect(200));
}

async fn an_empty_list_has_no_items(g: Ground) {
    let found = list(&g, "").await;
    assert_eq!((&found["items"], found["metadata"].get("continue").unwrap_or(&json!(""))), (&json!([]), &json!("")));
}

async fn a_list_shows_every_acknowledged_write(g: Ground) {
    for index in 0..10 {
        let name = format!("w{index}");
        some(&g, &[&name]).await;
        assert!(names(&list(&g, "").await).contains(&name.as_str()), "{name}");
    }
}

/// All pages of that size: their items, their versions, and what each said remained.
async fn pages(g: &Ground, limit: usize, more: &str) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let page = list(g, &format!("limit={limit}{more}{token}")).await;
        let next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        pages.push(page);
        if next.is_empty() {
            return pages;
        }
        assert!(pages.len() < 20, "the pages end");
        token = format!("&continue={next}");
    }
}

async fn a_list_comes_in_pages(g: Ground) {
    some(&g, &["a", "b", "c", "d", "e"]).await;
    let pages = pages(&g, 2, "").await;
    let found: Vec<Vec<&str>> = pages.iter().map(names).collect();
    assert_eq!(found, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    assert!(pages.iter().all(|page| version(page) == version(&pages[0])));
}

async fn all_pages_show_one_moment(g: Ground) {
    some(&g, &["a", "b", "c"]).await;
    let first = list(&g, "limit=1").await;
    some(&g, &["bb", "z"]).await;
    g.http.delete(&g.at("c")).await.expect(200);
    let changed = g.http.merge(&g.at("b"), &json!({"spec": {"size": 2}})).await.expect(200);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let rest = list(&g, &format!("limit=10&continue={token}")).await;
    assert_eq!(names(&rest), ["b", "c"]);
    assert_eq!(rest["items"][0]["spec"]["size"], 1, "as it was then");
    assert_eq!(version(&rest), version(&first));
    assert_ne!(version(&changed), version(&rest));
}

async fn a_page_says_how_many_remain(g: Ground) {
    some(&g, &["a", "b", "c", "d", "e"]).await;
    let pages = pages(&g, 2, "").await;
    let remaining: Vec<&Value> = pages.iter().map(|page| &page["metadata"]["remainingItemCount"]).collect();
    assert_eq!(remaining, [&json!(3), &json!(1), &Value::Null]);
}

async fn with_a_selector_nobody_knows_how_many_remain(g: Ground) {
    some(&g, &["a", "b", "c"]).await;
    let first = list(&g, "limit=1&labelSelector=!x").await;
    assert_eq!(first["metadata"]["remainingItemCount"], Value::Null);
    assert!(first["metadata"]["continue"].is_string());
}

async fn a_limit_that_is_not_reached_ends_the_list(g: Ground) {
    some(&g, &["a", "b"]).await;
    for limit in [0, 2, 3] {
        let found = list(&g, &format!("limit={limit}")).await;
        assert_eq!(names(&found), ["a", "b"], "{limit}");
        assert_eq!(found["metadata"].get("continue").and_then(Value::as_str).unwrap_or_default(), "", "{limit}");
    }
}

async fn a_continue_token_that_is_none_is_refused(g: Ground) {
    for token in ["nonsense", "bm9uc2Vuc2U", "%7B%7D"] {
        let answer = g.http.get(&format!("{}?limit=1&continue={token}", g.widgets())).await;
        answer.refused(400, "BadRequest");
    }
}

async fn a_continue_token_excludes_a_version(g: Ground) {
    some(&g, &["a", "b"]).await;
    let first = list(&g, "limit=1").await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let path = format!("{}?limit=1&continue={token}&resourceVersion={}", g.widgets(), version(&first));
    g.http.get(&path).await.refused(400, "BadRequest");
}

async fn pages_of_a_selection_hold_what_is_selected(g: Ground) {
    for (index, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let mut object = g.widget(name);
        object["metadata"]["labels"] = json!({"odd": (index % 2 == 1).to_string()});
        g.http.post(&g.widgets(), &object).await.expect(201);
    }
    let pages = pages(&g, 2, "&labelSelector=odd%3Dtrue").await;
    let found: Vec<&str> = pages.iter().flat_map(names).collect();
    assert_eq!(found, ["b", "d", "f"]);
}

async fn a_list_not_older_than_a_version_shows_it(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let query = format!("resourceVersion={}&resourceVersionMatch=NotOlderThan", version(&created));
    assert_eq!(names(&list(&g, &query).await), ["a"]);
    assert_eq!(names(&list(&g, &format!("resourceVersion={}", version(&created))).await), ["a"]);
}

async fn a_list_at_exactly_a_version_shows_that_moment(g: Ground) {
    some(&g, &["a", "b"]).await;
    let then = list(&g, "").await;
    g.http.delete(&g.at("a")).await.expect(200);
    some(&g, &["c"]).await;
    g.http.merge(&g.at("b"), &json!({"spec": {"size": 2}})).await.expect(200);
    let again = list(&g, &format!("resourceVersion={}&resourceVersionMatch=Exact", version(&then))).await;
    assert_eq!((&again["items"], version(&again)), (&then["items"], version(&then)));
}

async fn a_list_of_any_version_is_taken(g: Ground) {
    let any = list(&g, "resourceVersion=0").await;
    assert_eq!(any["kind"], "WidgetList");
    list(&g, "resourceVersion=0&resourceVersionMatch=NotOlderThan").await;
}

async fn an_object_not_older_than_a_version_is_shown(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let path = format!("{}?resourceVersion={}", g.at("a"), version(&created));
    assert_eq!(g.http.get(&path).await.expect(200), created);
}

async fn a_version_to_come_times_out(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let later = version(&created).parse::<u64>().expect("a number of today's servers") + 1_000_000_000;
    for path in [format!("{}?resourceVersion={later}", g.at("a")), format!("{}?resourceVersion={later}", g.widgets())] {
        let body = g.http.get(&path).await.refused(504, "Timeout");
        let cause = &body["details"]["causes"][0]["reason"];
        assert_eq!(cause, "ResourceVersionTooLarge", "{body}");
    }
}

async fn matching_needs_a_version(g: Ground) {
    for query in ["resourceVersionMatch=Exact", "resourceVersionMatch=NotOlderThan"] {
        let path = format!("{}?{query}", g.widgets());
        g.http.get(&path).await.invalid("FieldValueForbidden", "resourceVersionMatch");
    }
    let path = format!("{}?resourceVersionMatch=Exact&resourceVersion=0", g.widgets());
    g.http.get(&path).await.invalid("FieldValueForbidden", "resourceVersionMatch");
}

async fn an_unknown_matching_is_refused(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let path = format!("{}?resourceVersionMatch=Roughly&resourceVersion={}", g.widgets(), version(&created));
    g.http.get(&path).await.invalid("FieldValueNotSupported", "resourceVersionMatch");
}

async fn a_version_that_is_none_is_refused(g: Ground) {
    for path in [format!("{}?resourceVersion=abc", g.widgets()), format!("{}?resourceVersion=-1", g.widgets())] {
        let answer = g.http.get(&path).await;
        assert!(answer.code >= 400 && answer.body["kind"] == "Status", "{}", answer.body);
    }
}

async fn an_old_version_is_shown_or_gone(g: Ground) {
    for index in 0..100 {
        some(&g, &[&format!("w{index}")]).await;
    }
    let answer = g.http.get(&format!("{}?resourceVersion=1&resourceVersionMatch=Exact", g.widgets())).await;
    // A cluster of the last five minutes still remembers its beginning.
    if answer.code == 200 {
        assert_eq!((version(&answer.body), &answer.body["items"]), ("1", &json!([])));
    } else {
        answer.refused(410, "Expired");
    }
}
