//! The controllers: loops that drive what is towards what was asked for.
//!
//! Every controller is a module with a pure `reconcile` (objects in, decisions out; no clock, no I/O, no tokio) and a
//! thin `sync` that reads the shared informers, calls `reconcile` and writes the decisions. What they share is in
//! [`runtime`]: one watch per kind for all controllers, a deduplicating queue per controller, expectations against
//! stale caches, the event recorder, and the manager that starts and stops it all.
//!
//! All members of the control plane keep their informers warm; only the holder of the Lease
//! `kube-system/kube-controller-manager` works, so a fail-over costs no more than the lease.

use kube::Client;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub mod children;
mod cluster;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod hash;
pub mod history;
pub mod intstr;
pub mod job;
pub mod object;
pub mod pod;
pub mod replicaset;
pub mod runtime;
pub mod service;
pub mod statefulset;

use runtime::{Manager, Setup};

/// The lease that the acting member holds.
pub const LEASE: &str = "kube-controller-manager";

/// What the controllers need to know about the cluster.
#[derive(Clone)]
pub struct Config {
    /// A client with the identity `system:kube-controller-manager`.
    pub client: Client,
    /// This member's name in the lease.
    pub identity: String,
    /// The cluster's CA, published in each namespace as the ConfigMap `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Where nodes get their pod ranges from (a /24 each).
    pub cluster_cidr: ipnet::Ipv4Net,
    /// How long a node may be silent before it counts as unreachable.
    pub node_monitor_grace: Duration,
}

impl Config {
    /// A configuration with upstream's defaults for everything that has one.
    pub fn new(
        client: Client,
        identity: impl Into<String>,
        root_ca_pem: impl Into<String>,
    ) -> Self {
        Self {
            client,
            identity: identity.into(),
            root_ca_pem: root_ca_pem.into(),
            cluster_cidr: ipnet::Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            node_monitor_grace: Duration::from_secs(40),
        }
    }
}

/// Why the controllers stopped before they were told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task that must live as long as the process ended by itself.
    #[error("{0} ended unexpectedly")]
    TaskEnded(String),
}

/// Runs all controllers until `shutdown`; acts only while this member holds the lease.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    build(&config).run(shutdown).await
}

/// Wires every controller to the shared informers.
fn build(config: &Config) -> Manager {
    let mut setup = Setup::new(config);
    cluster::register(&mut setup);
    deployment::register(&mut setup);
    daemonset::register(&mut setup);
    statefulset::register(&mut setup);
    replicaset::register(&mut setup);
    job::register(&mut setup);
    cronjob::register(&mut setup);
    disruption::register(&mut setup);
    endpoints::register(&mut setup);
    endpointslice::register(&mut setup);
    setup.finish()
}
