//! The real kubectl as somebody who is not the owner.

use crate::kubectl::{Kubectl, with_kubectl};

/// The same kubectl with a token of its own.
fn with_token(kubectl: &Kubectl, token: &str) -> Kubectl {
    let text = std::fs::read_to_string(&kubectl.kubeconfig).expect("a kubeconfig");
    let own = text.lines().map(|line| match line.trim_start().starts_with("token: ") {
        true => format!("    token: {token}\n"),
        false => format!("{line}\n"),
    });
    let kubeconfig = kubectl.home.join("account.kubeconfig");
    std::fs::write(&kubeconfig, own.collect::<String>()).expect("written");
    Kubectl { kubeconfig, ..kubectl.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_does_what_its_role_says() {
    with_kubectl(|kubectl| {
        kubectl.run(&["create", "serviceaccount", "s"]).ok();
        kubectl.run(&["create", "clusterrole", "see", "--verb=get,list", "--resource=things.example.com"]).ok();
        kubectl.run(&["create", "clusterrolebinding", "see", "--clusterrole=see", "--serviceaccount=default:s"]).ok();
        kubectl.run(&["create", "role", "own", "--verb=create", "--resource=secrets", "--resource-name=x"]).ok();
        kubectl.run(&["create", "rolebinding", "own", "--role=own", "--user=jane"]).ok();
        let shown = kubectl.run(&["get", "clusterrolebinding", "see"]).ok();
        assert!(shown.contains("ClusterRole/see"), "{shown}");
        let described = kubectl.run(&["describe", "clusterrole", "see"]).ok();
        assert!(described.contains("things.example.com"), "{described}");
        if kubectl.minor < 24 {
            println!("skipped: kubectl 1.{} cannot ask for tokens", kubectl.minor);
            return;
        }
        let token = kubectl.run(&["create", "token", "s", "--duration=20m"]).ok();
        let account = with_token(kubectl, token.trim());
        account.run(&["get", "things"]).ok();
        account
            .run(&["get", "secrets"])
            .fails("cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"");
        account.run(&["delete", "thing", "none"]).fails("Forbidden");
        account.run(&["api-resources"]).ok();
        kubectl.run(&["delete", "serviceaccount", "s"]).ok();
        account.run(&["get", "things"]).fails("Unauthorized");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_asked_for_and_taken_on() {
    with_kubectl(|kubectl| {
        kubectl.run(&["create", "clusterrole", "see", "--verb=get,list", "--resource=things.example.com"]).ok();
        kubectl.run(&["create", "clusterrolebinding", "see", "--clusterrole=see", "--user=jane"]).ok();
        let asked = |arguments: &[&str]| kubectl.run(arguments);
        assert_eq!(asked(&["auth", "can-i", "list", "things.example.com", "--as=jane"]).ok(), "yes\n");
        let no = asked(&["auth", "can-i", "delete", "things.example.com", "--as=jane"]);
        assert!(!no.well && no.out == "no\n", "{no:?}");
        assert_eq!(asked(&["auth", "can-i", "get", "/version", "--as=jane"]).ok(), "yes\n");
        assert_eq!(asked(&["auth", "can-i", "*", "*"]).ok(), "yes\n");
        let list = asked(&["auth", "can-i", "--list", "--as=jane"]).ok();
        assert!(list.contains("things.example.com") && list.contains("[get list]"), "{list}");
        asked(&["get", "things", "--as=jane"]).ok();
        asked(&["get", "secrets", "--as=jane"]).fails("User \"jane\" cannot list resource \"secrets\"");
        asked(&["get", "secrets", "--as=jane", "--as-group=system:masters"]).ok();
        if kubectl.minor >= 28 {
            let who = asked(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--as=jane"]).ok();
            assert_eq!(who, "jane");
        } else {
            println!("skipped: kubectl 1.{} has no auth whoami", kubectl.minor);
        }
        asked(&["create", "namespace", "n"]).ok();
        asked(&["create", "secret", "generic", "s", "--from-literal=a=b", "-n", "n"]).ok();
        assert_eq!(asked(&["get", "secret", "s", "-n", "n", "-o", "jsonpath={.data.a}"]).ok(), "Yg==");
    })
    .await;
}
