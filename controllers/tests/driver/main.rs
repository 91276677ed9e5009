//! All controllers against a real apiserver on the store in memory. Nodes are pretended: [`node`] runs every pod as its
//! annotations say.

mod budgets;
#[path = "../../../apiserver/server/tests/harness/mod.rs"]
mod harness;
mod jobs;
mod node;
mod sets;

use std::time::Duration;

use harness::Cluster;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A small machine has no room for several clusters at a time.
static ONE: Mutex<()> = Mutex::const_new(());

/// A cluster with controllers and pretended nodes. Stops when dropped.
struct Driver {
    cluster: Cluster,
    stop: CancellationToken,
    _only: MutexGuard<'static, ()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Driver {
    async fn start() -> Self {
        let only = ONE.lock().await;
        let cluster = Cluster::start().await;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        let stop = CancellationToken::new();
        let config = pintle_controllers::Config::new(client.clone(), "m1", "a CA");
        tokio::spawn(pintle_controllers::run(config, stop.clone()));
        tokio::spawn(node::run(client, stop.clone()));
        let driver = Self { cluster, stop, _only: only };
        // The controllers make this; before it is there, pods are refused.
        driver
            .until(
                "the default service account",
                "/api/v1/namespaces/default/serviceaccounts/default",
                |account| account["metadata"]["name"] == "default",
            )
            .await;
        driver
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        self.cluster.post(path, &object).await.expect(201)
    }

    async fn get(&self, path: &str) -> Value {
        self.cluster.get(path).await.json()
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"].as_array().cloned().unwrap_or_default()
    }

    async fn merge(&self, path: &str, change: Value) -> Value {
        self.cluster.patch(path, "merge-patch+json", &change).await.expect(200)
    }

    /// Waits until what is at `path` is as wanted.
    async fn until(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let value = self.get(path).await;
            if wanted(&value) {
                return value;
            }
            assert!(start.elapsed() < Duration::from_secs(300), "never: {what}: {value:#}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs kubectl, if there is one on this machine.
    async fn kubectl(&self, arguments: &[&str]) -> Option<String> {
        let ran = self.cluster.kubectl(arguments, "").await?;
        assert!(ran.ok, "kubectl {arguments:?}: {}{}", ran.out, ran.err);
        Some(ran.out)
    }
}

fn names(items: &[Value]) -> Vec<String> {
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

fn holds(object: &Value, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| condition["status"] == "True")
}
