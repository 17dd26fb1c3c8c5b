//! Schemas: what is refused, what is dropped, and the rules about transitions.

use serde_json::json;

use crate::setup::{Http, THINGS, over_both, thing};

const A: &str = "/apis/example.com/v1/things/a";

#[tokio::test]
async fn faults_are_refused_with_all_their_causes() {
    over_both(|http: Http| async move {
        let mut bad = thing("a");
        bad["spec"] = json!({"size": true, "mode": "x", "count": 10, "code": "ABCDEF", "list": [{"n": "1"}]});
        let refused = http.post(THINGS, &bad).await.refused(422, "Invalid");
        assert_eq!(refused["details"]["kind"], "Thing");
        assert_eq!(refused["details"]["name"], "a");
        let causes = refused["details"]["causes"].as_array().expect("causes").iter();
        let causes: Vec<(&str, &str)> = causes
            .map(|cause| (cause["field"].as_str().expect("field"), cause["reason"].as_str().expect("reason")))
            .collect();
        assert_eq!(
            causes,
            [
                ("spec.code", "FieldValueTooLong"),
                ("spec.code", "FieldValueInvalid"),
                ("spec.count", "FieldValueInvalid"),
                ("spec.list[0].n", "FieldValueTypeInvalid"),
                ("spec.mode", "FieldValueNotSupported"),
                ("spec.size", "FieldValueTypeInvalid"),
            ]
        );
        let mut missing = thing("a");
        missing["spec"] = json!({});
        let refused = http.post(THINGS, &missing).await.refused(422, "Invalid");
        assert_eq!(refused["message"], "Thing.example.com \"a\" is invalid: spec.size: Required value");
        let mut null = thing("a");
        null["spec"]["size"] = json!(null);
        http.post(THINGS, &null).await.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn unknown_fields_are_dropped_refused_or_warned_about() {
    over_both(|http: Http| async move {
        let mut odd = thing("a");
        odd["spec"]["other"] = json!(1);
        odd["spec"]["free"] = json!({"anything": {"goes": [1, null]}});
        odd["metadata"]["strange"] = json!("x");
        let strict = http.post(&format!("{THINGS}?fieldValidation=Strict"), &odd).await.refused(400, "BadRequest");
        let message = strict["message"].as_str().expect("a message");
        assert!(message.contains("strict decoding error: "), "{message}");
        assert!(
            message.contains("unknown field \"spec.other\"") && message.contains("unknown field \"metadata.strange\"")
        );

        let warned = http.post(THINGS, &odd).await;
        assert_eq!(
            warned.warnings,
            ["299 - \"unknown field \\\"metadata.strange\\\"\"", "299 - \"unknown field \\\"spec.other\\\"\""]
        );
        let made = warned.expect(201);
        assert_eq!(made["spec"], json!({"size": "1Gi", "mode": "rw", "free": {"anything": {"goes": [1, null]}}}));
        assert!(made["metadata"].get("strange").is_none());

        let quiet = http.merge(&format!("{A}?fieldValidation=Ignore"), &json!({"spec": {"other": 1}})).await;
        assert!(quiet.warnings.is_empty());
        assert_eq!(quiet.expect(200), made);
        http.merge(&format!("{A}?fieldValidation=Strict"), &json!({"spec": {"other": 1}}))
            .await
            .refused(400, "BadRequest");
        http.merge(&format!("{A}?fieldValidation=Odd"), &json!({})).await.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn nulls_mean_not_set() {
    over_both(|http: Http| async move {
        let mut object = thing("a");
        object["spec"]["mode"] = json!(null);
        object["spec"]["count"] = json!(null);
        object["spec"]["comment"] = json!(null);
        let made = http.post(THINGS, &object).await.expect(201);
        assert_eq!(made["spec"], json!({"size": "1Gi", "mode": "rw", "comment": null}));
    })
    .await;
}

#[tokio::test]
async fn rules_about_transitions_hold_for_the_main_part_and_for_the_status() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        http.merge(A, &json!({"spec": {"nodeName": "n1"}})).await.expect(200);
        let refused = http.merge(A, &json!({"spec": {"nodeName": "n2"}})).await.refused(422, "Invalid");
        assert_eq!(
            refused["message"],
            "Thing.example.com \"a\" is invalid: spec: Invalid value: \"object\": nodeName never changes"
        );
        let status = format!("{A}/status");
        for phase in ["Pending", "Running", "Done"] {
            http.merge(&status, &json!({"status": {"phase": phase}})).await.expect(200);
        }
        let refused = http.merge(&status, &json!({"status": {"phase": "Running"}})).await.refused(422, "Invalid");
        let cause = &refused["details"]["causes"][0];
        assert_eq!(cause["field"], "status");
        assert_eq!(cause["reason"], "FieldValueInvalid");
        assert_eq!(cause["message"], "Invalid value: \"object\": a terminal phase never changes");
        http.merge(&status, &json!({"status": {"phase": "Odd"}})).await.refused(422, "Invalid");
        http.merge(&status, &json!({"status": {"message": "more"}})).await.expect(200);
        assert_eq!(http.get(A).await.expect(200)["status"], json!({"phase": "Done", "message": "more"}));
    })
    .await;
}
