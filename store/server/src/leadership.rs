//! Who leads, as this member knows it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Instant as _, RaftMetrics, ServerState};

use crate::consensus::{Node, Raft, StoredMembership, TypeConfig, Vote};

type Watched<T> = openraft::alias::WatchReceiverOf<TypeConfig, T>;

/// The leader of the current term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    This,
    Other(u64, Node),
    Unknown,
}

/// Follows openraft's view of the cluster. Each clone waits for changes on its own.
#[derive(Clone)]
pub(crate) struct Leadership {
    /// Changes only with the term, the leader and the membership, so that waiting for it is cheap.
    server: Watched<RaftServerMetrics<TypeConfig>>,
    /// Changes with every log entry.
    metrics: Watched<RaftMetrics<TypeConfig>>,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Leadership").field(&self.leader()).finish()
    }
}

impl Leadership {
    pub(crate) fn new(raft: &Raft) -> Self {
        Self { server: raft.server_metrics(), metrics: raft.metrics() }
    }

    pub(crate) fn leader(&self) -> Leader {
        let server = self.server.borrow_watched();
        match server.current_leader {
            Some(id) if id == server.id => {
                if server.state == ServerState::Leader {
                    Leader::This
                } else {
                    Leader::Unknown
                }
            }
            Some(id) => match server.membership_config.membership().get_node(&id) {
                Some(node) => Leader::Other(id, node.clone()),
                None => Leader::Unknown,
            },
            None => Leader::Unknown,
        }
    }

    pub(crate) fn leader_id(&self) -> Option<u64> {
        self.server.borrow_watched().current_leader
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leader() == Leader::This
    }

    pub(crate) fn term(&self) -> u64 {
        self.server.borrow_watched().vote.leader_id.term
    }

    /// Whom this member has voted for, or follows.
    pub(crate) fn vote(&self) -> Vote {
        self.server.borrow_watched().vote
    }

    /// The newest index in this member's log.
    pub(crate) fn last_index(&self) -> u64 {
        self.metrics.borrow_watched().last_log_index.unwrap_or(0)
    }

    /// The index up to which the state is known to be flushed.
    pub(crate) fn snapshot_index(&self) -> u64 {
        self.metrics.borrow_watched().snapshot.map_or(0, |id| id.index())
    }

    /// The index up to which the log has been cut.
    pub(crate) fn purged_index(&self) -> u64 {
        self.metrics.borrow_watched().purged.map_or(0, |id| id.index())
    }

    /// The membership in effect.
    pub(crate) fn membership(&self) -> Arc<StoredMembership> {
        Arc::clone(&self.server.borrow_watched().membership_config)
    }

    /// How far each member's log is known to be the same as the leader's; only on the leader.
    pub(crate) fn matched(&self, id: u64) -> Option<u64> {
        let metrics = self.metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?;
        Some(matched.index())
    }

    /// The members that have answered this leader within `within`.
    pub(crate) fn active(&self, within: Duration) -> BTreeSet<u64> {
        let metrics = self.metrics.borrow_watched();
        let answered = metrics.heartbeat.iter().flatten();
        let recent = answered.filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < within));
        recent.map(|(id, _)| *id).collect()
    }

    /// Why consensus has stopped on this member, if it has.
    pub(crate) fn failure(&self) -> Option<String> {
        let metrics = self.metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Resolves when `id` is not the leader any more.
    pub(crate) async fn lost(mut self, id: u64) {
        while self.leader_id() == Some(id) {
            self.changed().await;
        }
    }

    /// Resolves when this member holds another vote than `vote`: another leader, or an election.
    pub(crate) async fn superseded(mut self, vote: Vote) {
        while self.vote() == vote {
            self.changed().await;
        }
    }

    /// Resolves when anything above changed; never again after consensus has stopped.
    pub(crate) async fn changed(&mut self) {
        if self.server.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
