//! The service proxy: ClusterIP, NodePort, external and load-balancer addresses, TCP, UDP and
//! SCTP, by nftables in the node's network namespace (the shape of kube-proxy's nftables mode, KEP-3866).
//!
//! [`model`] says what services and endpoints mean, [`ruleset`] turns that into chains and map
//! elements and computes the difference to what the kernel has; both are pure. Here is the I/O:
//! watches, a short gathering of changes, one atomic `nft` transaction for each.
//!
//! One agent a network namespace owns the table, by a file lock that dies with its holder.

mod conntrack;
mod model;
mod nft;
mod owner;
mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use model::{Model, ServiceKey};
use ruleset::Ruleset;

/// Changes that arrive together (a rolling update touches many slices) make one transaction.
const GATHER: Duration = Duration::from_millis(20);
/// A refused transaction is tried again, from scratch, after this.
const RETRY: Duration = Duration::from_secs(1);

/// What the proxy needs to know of its node.
#[derive(Clone)]
pub struct Config {
    /// The client that watches services, slices and nodes.
    pub client: kube::Client,
    /// Decides which endpoints are local.
    pub node_name: String,
    /// The bridge of the node's pods: traffic from it may be sent on to loopback.
    pub bridge: String,
    /// Services that this node answers itself, by namespace and name: cluster DNS.
    pub local: BTreeMap<(String, String), SocketAddr>,
}

/// Owns the rules while this process lives. Rules stay when it ends, so that a restart of the
/// agent disturbs no connection.
pub async fn run(config: Config, shutdown: CancellationToken) {
    nft::allow_loopback_from(&config.bridge).await;
    let Some(_owner) = owner::acquire(&shutdown).await else { return };
    tracing::info!("this agent owns the service rules");
    let changed = Arc::new(Notify::new());
    let services = reflect::<Service>(&config.client, &changed, &shutdown);
    let slices = reflect::<EndpointSlice>(&config.client, &changed, &shutdown);
    let nodes = reflect::<Node>(&config.client, &changed, &shutdown);
    for store_ready in [
        services.wait_until_ready().await,
        slices.wait_until_ready().await,
        nodes.wait_until_ready().await,
    ] {
        if store_ready.is_err() {
            return;
        }
    }
    let mut proxy = Proxy { config, services, slices, nodes, applied: None };
    loop {
        let again = if proxy.sync().await { Duration::MAX } else { RETRY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = changed.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// A watched copy of all objects of a kind; every change wakes `changed`.
fn reflect<K>(
    client: &kube::Client,
    changed: &Arc<Notify>,
    shutdown: &CancellationToken,
) -> Store<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (reader, writer) = reflector::store::<K>();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    tokio::spawn(drive(stream, changed.clone(), shutdown.clone()));
    reader
}

async fn drive<K, S>(stream: S, changed: Arc<Notify>, shutdown: CancellationToken)
where
    S: Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
{
    let mut stream = pin!(stream);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => match event {
                Some(Ok(_)) => changed.notify_one(),
                Some(Err(error)) => tracing::warn!(%error, "watch"),
                None => return,
            },
        }
    }
}

struct Proxy {
    config: Config,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    /// What the kernel has; `None` before the first transaction and after a refused one.
    applied: Option<(Model, Ruleset)>,
}

impl Proxy {
    /// Brings the kernel to what the caches say; false when it has to be tried again.
    async fn sync(&mut self) -> bool {
        let model = self.model();
        let wanted = Ruleset::of(&model);
        let script = match &self.applied {
            Some((_, applied)) => wanted.transaction_from(applied),
            None => wanted.replacement(),
        };
        let Some(script) = script else { return true };
        if let Err(error) = nft::apply(&script).await {
            tracing::error!(%error, "the kernel refused the service rules");
            self.applied = None;
            return false;
        }
        let stale = match &self.applied {
            Some((before, _)) => model.stale_udp(before),
            None => BTreeSet::new(),
        };
        conntrack::forget(stale).await;
        self.applied = Some((model, wanted));
        true
    }

    fn model(&self) -> Model {
        let pod_cidrs: BTreeSet<Ipv4Net> = self
            .nodes
            .state()
            .iter()
            .filter_map(|node| node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok())
            .collect();
        let local: BTreeMap<ServiceKey, SocketAddr> = self
            .config
            .local
            .iter()
            .map(|((namespace, name), address)| {
                (ServiceKey { namespace: namespace.clone(), name: name.clone() }, *address)
            })
            .collect();
        Model::build(
            &self.services.state(),
            &self.slices.state(),
            &self.config.node_name,
            &local,
            pod_cidrs,
        )
    }
}

/// Parses an IPv4 address; other families are another table's business.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}
