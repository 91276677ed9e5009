//! The node's lease in `kube-node-lease`: the sign of life that costs the apiserver least.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Where leases of nodes live.
const NAMESPACE: &str = "kube-node-lease";
/// `spec.leaseDurationSeconds`
const DURATION_SECONDS: i32 = 40;
/// A quarter of the duration.
const RENEW_PERIOD: Duration = Duration::from_secs(10);
/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// A request that hangs on a dying apiserver is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Renews until shutdown.
pub async fn run(client: Client, node: Node, shutdown: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut ticks = interval(RENEW_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = None;
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        loop {
            match timeout(REQUEST_TIMEOUT, renew(&api, &node, known.take())).await {
                Ok(Ok(lease)) => {
                    known = Some(lease);
                    break;
                }
                Ok(Err(error)) => tracing::debug!(%error, "node lease not renewed"),
                Err(_) => tracing::debug!("node lease not renewed in time"),
            }
            if shutdown.run_until_cancelled(sleep(RETRY)).await.is_none() {
                return;
            }
        }
    }
}

async fn renew(api: &Api<Lease>, node: &Node, known: Option<Lease>) -> kube::Result<Lease> {
    let name = node.name_any();
    let known = match known {
        Some(lease) => Some(lease),
        None => api.get_opt(&name).await?,
    };
    match known {
        Some(mut lease) => {
            lease.spec = Some(spec(&name));
            api.replace(&name, &PostParams::default(), &lease).await
        }
        None => api.create(&PostParams::default(), &new_lease(node)).await,
    }
}

fn spec(holder: &str) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    }
}

fn new_lease(node: &Node) -> Lease {
    let name = node.name_any();
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: node.uid().map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: name.clone(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(spec(&name)),
    }
}
