//! Client certificates, on the port.

use std::time::Duration;

use lvault_apiserver::tls::{Credential, Identity, kubeconfig_for};
use serde_json::{Value, json};

use crate::setup::{Http, Listening, THINGS, client, in_memory, rule};

const HOUR: Duration = Duration::from_secs(3600);

fn config(listening: &Listening, identity: &Identity, user: &str, group: Option<&str>) -> String {
    let certificate = identity.issue(user, group, HOUR).expect("issued");
    kubeconfig_for(listening.address, listening.identity.ca_pem(), user, Credential::Certificate(&certificate))
}

#[tokio::test]
async fn a_certificate_is_a_user_and_a_wrong_one_is_nobody() {
    let server = in_memory().await;
    let listening = Listening::start(&server).await;
    let owner = Http(client(&server));
    owner.grant("see", "jane", &json!([rule(&["list"], &["example.com"], &["things"], &[])])).await;
    let jane = listening.client_of(&config(&listening, &listening.identity, "jane", Some("team"))).await;
    jane.get(THINGS).await.expect(200);
    jane.get("/api/v1/secrets").await.refused(403, "Forbidden");
    let whoami = jane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    let info = json!({"username": "jane", "groups": ["team", "system:authenticated"]});
    assert_eq!(whoami["status"]["userInfo"], info);
    let master = listening.client_of(&config(&listening, &listening.identity, "admin", Some("system:masters"))).await;
    master.get("/api/v1/secrets").await.expect(200);

    // Signed by somebody else: an answer, not a broken connection; and no path is open to it.
    let folder = tempfile::tempdir().expect("a folder");
    let other = Identity::load_or_create(folder.path()).expect("another identity");
    let foreign = config(&listening, &other, "jane", None);
    for path in [THINGS, "/version"] {
        let answer = listening.client_of(&foreign).await.get(path).await;
        assert_eq!(answer.refused(401, "Unauthorized")["message"], "Unauthorized");
    }
    // The same identity, loaded again, signs with the same authority.
    let again = Identity::load_or_create(&listening.folder.path().join("tls")).expect("loaded");
    listening.client_of(&config(&listening, &again, "jane", None)).await.get(THINGS).await.expect(200);
    owner.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/see", &Value::Null).await.expect(200);
    jane.get(THINGS).await.refused(403, "Forbidden");
    listening.stop().await;
}
