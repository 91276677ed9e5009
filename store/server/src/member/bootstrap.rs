//! A member's first start: who it is, and how the cluster comes to be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pintle_proto::raft::ClusterInfoRequest;
use tokio::time::{Instant, timeout};

use super::{StartError, failed, peer_client_tls};
use crate::config::Config;
use crate::consensus::convert::node_from_pb;
use crate::consensus::log::offline;
use crate::consensus::{Membership, Node};
use crate::core::Core;
use crate::host::Host;
use crate::identity::Identity;
use crate::peer::{Lane, Peers};

/// A new member asks again this soon where nobody has answered, or none who must know.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long one member may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Who this member is, on its first start. A new one asks the others, for as long as a request may take:
/// those that lag do not know it yet.
pub(super) async fn identify(config: &Config, host: &Host) -> Result<Identity, StartError> {
    if !config.initial_cluster_existing {
        let found = Identity::found(config);
        return found.ok_or_else(|| StartError::NotInCluster(config.name.clone()));
    }
    let peers = Peers::new(0, 0, peer_client_tls(config)?, host.clone());
    let own = |url: &String| config.initial_advertise_peer_urls.contains(url);
    if config.initial_cluster.iter().all(|(_, url)| own(url)) {
        return Err(StartError::Alone);
    }
    let deadline = Instant::now() + config.request_timeout();
    loop {
        let told = ask_around(config, &peers).await;
        match told {
            Told::Known(identity) => return Ok(identity),
            // A leader knows all whom the cluster has added.
            Told::Unknown { by_leader: true } => return Err(StartError::NotAdded),
            Told::Unknown { .. } if Instant::now() >= deadline => return Err(StartError::NotAdded),
            Told::Nothing if Instant::now() >= deadline => return Err(StartError::Alone),
            Told::Unknown { .. } | Told::Nothing => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

/// What the members of the running cluster say of a new one.
enum Told {
    Known(Identity),
    Unknown { by_leader: bool },
    Nothing,
}

async fn ask_around(config: &Config, peers: &Peers) -> Told {
    let mut told = Told::Nothing;
    for (_, url) in &config.initial_cluster {
        if config.initial_advertise_peer_urls.contains(url) {
            continue;
        }
        let Ok(mut client) = peers.client_at(url, Lane::Control) else { continue };
        let answer = timeout(ASK_TIMEOUT, client.cluster_info(ClusterInfoRequest {})).await;
        let info = match answer {
            Ok(Ok(info)) => info.into_inner(),
            Ok(Err(status)) => {
                tracing::warn!(url, %status, "a member of the cluster did not answer");
                continue;
            }
            Err(_) => {
                tracing::warn!(url, "a member of the cluster did not answer in time");
                continue;
            }
        };
        let members = info.membership.unwrap_or_default().members.into_iter().map(node_from_pb);
        let own = |node: &Node| {
            node.peer_urls.iter().any(|url| config.initial_advertise_peer_urls.contains(url))
        };
        if let Some((member_id, _)) = members.into_iter().find(|(_, node)| own(node)) {
            let founders = BTreeMap::new();
            return Told::Known(Identity { cluster_id: info.cluster_id, member_id, founders });
        }
        let before = matches!(told, Told::Unknown { by_leader: true });
        told = Told::Unknown { by_leader: before || info.leads };
    }
    told
}

/// Founds the cluster on its first start. One founder begins, so that the others do not stand
/// against it; they only begin themselves if they do not hear from it.
pub(super) async fn found(core: Arc<Core>, fresh: bool) {
    let founders = &core.identity.founders;
    if !fresh || founders.is_empty() {
        return;
    }
    let first = founders.keys().next() == Some(&core.identity.member_id);
    if !first {
        tokio::time::sleep(Duration::from_millis(2 * core.config.election_ms)).await;
    }
    if core.raft.is_initialized().await.unwrap_or(true) {
        return;
    }
    if let Err(error) = core.raft.initialize(founders.clone()).await {
        // Another founder was faster.
        tracing::debug!(%error, "not the one who founds the cluster");
    }
}

/// Makes this member the only one of its cluster, with all that its log holds, before it starts:
/// the others are lost.
pub(super) fn cut_off(config: &Config, identity: &Identity) -> Result<(), StartError> {
    let node = Node {
        name: config.name.clone(),
        peer_urls: config.initial_advertise_peer_urls.clone(),
        client_urls: config.advertise_client_urls.clone(),
        promote: false,
    };
    let id = identity.member_id;
    let alone = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, node)]))
        .map_err(|error| StartError::Consensus(error.to_string()))?;
    let cut = offline::append_membership(&config.log_dir(), &alone)
        .map_err(failed("forcing a new cluster"))?;
    if cut {
        tracing::warn!("forced a new cluster of this member alone");
    }
    Ok(())
}
