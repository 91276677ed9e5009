//! Registers the node, keeps its status fresh, and installs the pod network once the node has a range.

use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::info;
use super::status::{self, Facts, Health};
use crate::cni;
use crate::config::Paths;
use crate::events::Recorder;
use crate::pod::pleg::Pleg;
use crate::runtime::Runtime;

/// How often the node's health is looked at; a change is reported at once.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// While the node is not ready it is looked at more often.
const LOOK_PERIOD_NOT_READY: Duration = Duration::from_millis(250);
/// An unchanged status is reported this often; the lease is the sign of life between.
const REPORT_PERIOD: Duration = Duration::from_secs(300);
/// A request that hangs on a dying apiserver is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a failed request.
const RETRY: Duration = Duration::from_millis(500);

/// Pressure that the eviction manager measures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory is short.
    pub memory: bool,
    /// Disk is short.
    pub disk: bool,
    /// Process ids are short.
    pub pids: bool,
}

/// Keeps the Node object.
pub struct Registration {
    /// The connection.
    pub client: Client,
    /// The node's name.
    pub name: String,
    /// The machine.
    pub facts: Facts,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Whether the runtime is looked at.
    pub pleg: Pleg,
    /// Where the network configuration goes.
    pub paths: Paths,
    /// Events.
    pub events: Recorder,
    /// What is short.
    pub pressure: watch::Receiver<Pressure>,
}

impl Registration {
    /// Creates the node, or adopts it; tries until it works. `None` at shutdown.
    pub async fn register(&self, shutdown: &CancellationToken) -> Option<Node> {
        loop {
            match timeout(REQUEST_TIMEOUT, self.try_register()).await {
                Ok(Ok(node)) => return Some(node),
                Ok(Err(error)) => tracing::debug!(%error, "not registered yet"),
                Err(_) => tracing::debug!("not registered in time"),
            }
            shutdown.run_until_cancelled(sleep(RETRY)).await?;
        }
    }

    async fn try_register(&self) -> kube::Result<Node> {
        let api: Api<Node> = Api::all(self.client.clone());
        let Some(existing) = api.get_opt(&self.name).await? else {
            let health = self.health().await;
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: Some(self.labels().into()),
                    ..ObjectMeta::default()
                },
                status: Some(self.status(&NodeStatus::default(), &health).await),
                ..Node::default()
            };
            return api.create(&PostParams::default(), &node).await;
        };
        let labels = existing.metadata.labels.clone().unwrap_or_default();
        if self.labels().iter().all(|(key, value)| labels.get(key) == Some(value)) {
            return Ok(existing);
        }
        let patch =
            json!({ "metadata": { "labels": std::collections::BTreeMap::from(self.labels()) } });
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    fn labels(&self) -> [(String, String); 5] {
        let arch = info::architecture();
        [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
    }

    /// Reports until shutdown.
    pub async fn run(mut self, node: Node, shutdown: CancellationToken) {
        self.events.node(&node, false, "Starting", "Starting kubelet.");
        let mut known = node;
        let mut reported = Instant::now() - REPORT_PERIOD;
        loop {
            let health = self.health().await;
            let report = self.report(&mut known, &health, reported.elapsed() >= REPORT_PERIOD);
            match timeout(REQUEST_TIMEOUT, report).await {
                Ok(Ok(true)) => reported = Instant::now(),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "node status not written"),
                Err(_) => tracing::debug!("node status not written in time"),
            }
            self.install_network(&mut known).await;
            let pause =
                if health.not_ready.is_empty() { LOOK_PERIOD } else { LOOK_PERIOD_NOT_READY };
            tokio::select! {
                            () = shutdown.cancelled() => return,
                            () = sleep(pause) => {}
            // Without an eviction manager nothing is ever short.
                            Ok(()) = self.pressure.changed() => {}
                        }
        }
    }

    async fn health(&self) -> Health {
        let mut not_ready = Vec::new();
        match self.runtime.readiness().await {
            Ok(readiness) => {
                not_ready
                    .extend(readiness.runtime.map(|m| format!("container runtime not ready: {m}")));
                not_ready.extend(
                    readiness.network.map(|m| format!("container runtime network not ready: {m}")),
                );
            }
            Err(error) => not_ready.push(format!("container runtime is down: {error}")),
        }
        not_ready.extend(self.pleg.problem());
        let pressure = *self.pressure.borrow();
        Health {
            not_ready,
            memory_pressure: pressure.memory,
            disk_pressure: pressure.disk,
            pid_pressure: pressure.pids,
        }
    }

    async fn status(&self, previous: &NodeStatus, health: &Health) -> NodeStatus {
        let images = self.runtime.list_images().await.unwrap_or_default();
        let mut facts = self.facts.clone();
        if let Ok(version) = self.runtime.version().await {
            facts.info.container_runtime_version =
                format!("{}://{}", version.name, version.version);
        }
        status::generate(previous, &facts, health, &images, Timestamp::now())
    }

    /// Whether something was written.
    async fn report(&self, known: &mut Node, health: &Health, due: bool) -> kube::Result<bool> {
        let api: Api<Node> = Api::all(self.client.clone());
        let previous = known.status.clone().unwrap_or_default();
        let wanted = self.status(&previous, health).await;
        if !due && !status::differs(&previous, &wanted) {
            return Ok(false);
        }
        // Strategic: conditions and addresses of others stay.
        let patch = json!({ "status": wanted });
        match api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)).await
        {
            Ok(node) => *known = node,
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                *known = self.try_register().await?
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Writes the network configuration when the node has its range.
    async fn install_network(&self, known: &mut Node) {
        let range = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        if range(known).is_none() {
            let api: Api<Node> = Api::all(self.client.clone());
            match timeout(REQUEST_TIMEOUT, api.get(&self.name)).await {
                Ok(Ok(node)) => *known = node,
                Ok(Err(error)) => tracing::debug!(%error, "cannot read the node"),
                Err(_) => tracing::debug!("cannot read the node in time"),
            }
        }
        let Some(range) = range(known) else { return };
        let installed = match range.parse::<Ipv4Net>() {
            Ok(subnet) => {
                self.runtime.pod_network(subnet);
                match self.runtime.is_real() {
                    true => cni::install(&self.paths, subnet).map_err(|error| error.to_string()),
                    false => Ok(()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = installed {
            tracing::error!(range, error, "cannot configure the pod network");
        }
    }
}
