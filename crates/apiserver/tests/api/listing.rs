//! Lists: selectors, pages, versions.

use serde_json::{Value, json};

use crate::setup::{BOXES, Http, THINGS, box_of, names, over_both, thing};

async fn fill(http: &Http, count: usize) {
    for index in 0..count {
        let mut object = thing(&format!("t{index:02}"));
        object["metadata"]["labels"] = json!({"parity": if index % 2 == 0 { "even" } else { "odd" }});
        object["spec"]["nodeName"] = json!(format!("n{}", index % 3));
        http.post(THINGS, &object).await.expect(201);
    }
}

#[tokio::test]
async fn lists_are_selected() {
    over_both(|http: Http| async move {
        fill(&http, 6).await;
        let cases = [
            ("labelSelector=parity%3Dodd", vec!["t01", "t03", "t05"]),
            ("labelSelector=parity+in+(even),parity!=odd", vec!["t00", "t02", "t04"]),
            ("fieldSelector=spec.nodeName%3Dn1", vec!["t01", "t04"]),
            ("fieldSelector=spec.nodeName!%3Dn1", vec!["t00", "t02", "t03", "t05"]),
            ("fieldSelector=metadata.name%3Dt03", vec!["t03"]),
            ("fieldSelector=spec.nodeName%3Dn1&labelSelector=parity%3Deven", vec!["t04"]),
            ("&limit=500", vec!["t00", "t01", "t02", "t03", "t04", "t05"]),
            ("resourceVersion=0", vec!["t00", "t01", "t02", "t03", "t04", "t05"]),
        ];
        for (query, expected) in cases {
            let list = http.get(&format!("{THINGS}?{query}")).await.expect(200);
            assert_eq!(names(&list), expected, "{query}");
            assert_eq!(
                (list["kind"].as_str(), list["apiVersion"].as_str()),
                (Some("ThingList"), Some("example.com/v1"))
            );
        }
        let refused = http.get(&format!("{THINGS}?fieldSelector=spec.size%3D1")).await.refused(400, "BadRequest");
        assert_eq!(refused["message"], "field label not supported: spec.size");
        http.get(&format!("{THINGS}?labelSelector=a+b")).await.refused(400, "BadRequest");
        http.get(&format!("{THINGS}?limit=x")).await.refused(400, "BadRequest");
    })
    .await;
}

#[tokio::test]
async fn namespaces_divide_lists() {
    over_both(|http: Http| async move {
        http.post(BOXES, &box_of("here")).await.expect(201);
        http.post("/apis/example.com/v1/namespaces/kube-system/boxes", &box_of("there")).await.expect(201);
        assert_eq!(names(&http.get(BOXES).await.expect(200)), ["here"]);
        let all = http.get("/apis/example.com/v1/boxes").await.expect(200);
        assert_eq!(names(&all), ["here", "there"]);
        let selected =
            http.get("/apis/example.com/v1/boxes?fieldSelector=metadata.namespace%3Dkube-system").await.expect(200);
        assert_eq!(names(&selected), ["there"]);
        let core = http.get("/api/v1/namespaces?fieldSelector=status.phase%3DActive").await.expect(200);
        assert_eq!(names(&core), ["default", "kube-system"]);
    })
    .await;
}

/// The pages of a list belong together, whatever is written between them.
#[tokio::test]
async fn all_pages_show_one_version() {
    over_both(|http: Http| async move {
        fill(&http, 7).await;
        let first = http.get(&format!("{THINGS}?limit=3")).await.expect(200);
        assert_eq!(names(&first), ["t00", "t01", "t02"]);
        assert_eq!(first["metadata"]["remainingItemCount"], 4);
        let version = first["metadata"]["resourceVersion"].clone();

        http.delete(&format!("{THINGS}/t04"), &Value::Null).await.expect(200);
        http.post(THINGS, &thing("t035")).await.expect(201);
        http.merge(&format!("{THINGS}/t03"), &json!({"spec": {"count": 9}})).await.expect(200);
        http.merge(&format!("{THINGS}/t03"), &json!({"spec": {"count": 8}})).await.expect(200);

        let mut seen: Vec<Value> = Vec::new();
        let mut more = first["metadata"]["continue"].as_str().expect("more").to_owned();
        loop {
            let page = http.get(&format!("{THINGS}?limit=3&continue={more}")).await.expect(200);
            assert_eq!(page["metadata"]["resourceVersion"], version);
            seen.extend(page["items"].as_array().expect("items").iter().cloned());
            match page["metadata"]["continue"].as_str() {
                Some(next) => more = next.to_owned(),
                None => break,
            }
        }
        let rest = json!({"items": seen});
        assert_eq!(names(&rest), ["t03", "t04", "t05", "t06"]);
        assert!(rest["items"][0]["spec"].get("count").is_none(), "as it was when the list began");

        let exact = format!("{THINGS}?resourceVersion={}&resourceVersionMatch=Exact", version.as_str().expect("text"));
        assert_eq!(names(&http.get(&exact).await.expect(200)).len(), 7);
        http.get(&format!("{THINGS}?continue=odd")).await.refused(400, "BadRequest");
        http.get(&format!("{THINGS}?resourceVersionMatch=Exact")).await.refused(422, "Invalid");
        http.get(&format!("{THINGS}?resourceVersion=x")).await.refused(400, "BadRequest");
        let future = http.get(&format!("{THINGS}?resourceVersion=99999")).await.refused(504, "Timeout");
        assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    })
    .await;
}

#[tokio::test]
async fn a_list_whose_version_is_forgotten_has_expired() {
    let mut config = lvault_apiserver::Config::in_memory(crate::setup::kinds());
    config.watch_history = 4;
    let server = lvault_apiserver::ApiServer::open(config).await.expect("opens");
    let http = Http(crate::setup::client(&server));
    fill(&http, 4).await;
    let first = http.get(&format!("{THINGS}?limit=2")).await.expect(200);
    let more = first["metadata"]["continue"].as_str().expect("more").to_owned();
    for count in 1..7 {
        http.merge(&format!("{THINGS}/t00"), &json!({"spec": {"count": count}})).await.expect(200);
    }
    http.get(&format!("{THINGS}?limit=2&continue={more}")).await.refused(410, "Expired");
}
