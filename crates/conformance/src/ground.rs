//! What a case stands on: a way to the server, a namespace and names of its own.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Http;

/// What a case needs of a server beyond the API itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Api,
    /// The controllers that collect garbage and empty namespaces. A bare kube-apiserver has none.
    Controllers,
    /// Somebody to refuse: in the process there is nobody but the owner.
    Strangers,
    /// Server-side apply; left out where the server says 415, which is allowed of a server that is no cluster.
    Apply,
}

/// One case.
pub struct Case {
    /// Where it stands and what it says.
    pub name: &'static str,
    /// The page of the Kubernetes documentation, and its section.
    pub page: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// The case itself; it panics when it fails.
    pub run: fn(Ground) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Lists cases: `needs`, the page, and below it the functions with the section that each is written from.
macro_rules! cases {
    ($($needs:ident $page:ident { $($name:ident: $section:literal,)* })*) => {
        pub(crate) const CASES: &[crate::ground::Case] = &[$($(crate::ground::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            page: concat!($page!(), " (", $section, ")"),
            needs: crate::ground::Needs::$needs,
            run: |ground| Box::pin($name(ground)),
        },)*)*];
    };
}
pub(crate) use cases;

macro_rules! concepts {
    () => {
        "https://kubernetes.io/docs/reference/using-api/api-concepts/"
    };
}
macro_rules! conventions {
    () => {
        "https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md"
    };
}
macro_rules! apply {
    () => {
        "https://kubernetes.io/docs/reference/using-api/server-side-apply/"
    };
}
macro_rules! custom {
    () => {
        "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/"
    };
}
macro_rules! naming {
    () => {
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/names/"
    };
}
macro_rules! labels {
    () => {
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/"
    };
}
macro_rules! annotations {
    () => {
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/"
    };
}
macro_rules! fields {
    () => {
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/"
    };
}
macro_rules! finalizers {
    () => {
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/"
    };
}
macro_rules! owners {
    () => {
        "https://kubernetes.io/docs/concepts/architecture/garbage-collection/"
    };
}
macro_rules! namespaces {
    () => {
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"
    };
}
macro_rules! secrets {
    () => {
        "https://kubernetes.io/docs/concepts/configuration/secret/"
    };
}
macro_rules! leases {
    () => {
        "https://kubernetes.io/docs/concepts/architecture/leases/"
    };
}
macro_rules! events {
    () => {
        "https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/"
    };
}
macro_rules! patching {
    () => {
        "https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/"
    };
}
macro_rules! overview {
    () => {
        "https://kubernetes.io/docs/concepts/overview/kubernetes-api/"
    };
}
macro_rules! health {
    () => {
        "https://kubernetes.io/docs/reference/using-api/health-checks/"
    };
}
macro_rules! who {
    () => {
        "https://kubernetes.io/docs/reference/access-authn-authz/authentication/"
    };
}
pub(crate) use {
    annotations, apply, concepts, conventions, custom, events, fields, finalizers, health, labels, leases, namespaces,
    naming, overview, owners, patching, secrets, who,
};

/// Longest that a server takes for what it does in the background. A garbage collector looks for new kinds every 30 seconds.
const BACKGROUND: Duration = Duration::from_secs(120);

/// What one case stands on.
#[derive(Clone)]
pub struct Ground {
    /// With every right.
    pub(crate) http: Http,
    /// With a token that the server does not know.
    pub(crate) stranger: Option<Http>,
    /// The API group of the suite's kinds.
    pub(crate) group: String,
    /// A namespace that only this case uses; it exists.
    pub(crate) namespace: String,
}

impl Ground {
    /// The path of the namespaced kind in the case's namespace.
    pub(crate) fn widgets(&self) -> String {
        format!("/apis/{}/v1/namespaces/{}/widgets", self.group, self.namespace)
    }

    /// The path of one of them.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.widgets())
    }

    /// The least that is valid.
    pub(crate) fn widget(&self, name: &str) -> Value {
        self.widget_of(name, &json!({"size": 1}))
    }

    /// One with that spec.
    pub(crate) fn widget_of(&self, name: &str, spec: &Value) -> Value {
        json!({"apiVersion": format!("{}/v1", self.group), "kind": "Widget", "metadata": {"name": name}, "spec": spec})
    }

    /// Creates one with that spec.
    pub(crate) async fn create(&self, name: &str, spec: &Value) -> Value {
        self.http.post(&self.widgets(), &self.widget_of(name, spec)).await.expect(201)
    }

    /// The path of the kind of cluster scope.
    pub(crate) fn gadgets(&self) -> String {
        format!("/apis/{}/v1/gadgets", self.group)
    }

    /// A name in cluster scope that only this case uses.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    /// One of cluster scope, by a name from [`Ground::own`].
    pub(crate) fn gadget(&self, name: &str) -> Value {
        json!({"apiVersion": format!("{}/v1", self.group), "kind": "Gadget", "metadata": {"name": name}})
    }

    pub(crate) fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    pub(crate) fn leases(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    pub(crate) fn events(&self) -> String {
        format!("/api/v1/namespaces/{}/events", self.namespace)
    }

    /// Waits until `look` finds something, for what a cluster does in the background.
    pub(crate) async fn eventually<T, F>(&self, what: &str, look: impl Fn() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        eventually(what, look).await
    }

    /// Waits until there is nothing at that path.
    pub(crate) async fn gone(&self, path: &str) {
        self.eventually(&format!("the end of {path}"), || async {
            (self.http.get(path).await.code == 404).then_some(())
        })
        .await;
    }
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T, F>(what: &str, look: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(BACKGROUND, looking).await.unwrap_or_else(|_| panic!("{what} did not come"))
}
