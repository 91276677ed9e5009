//! One running member: everything that its services share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pintle_mvcc::Reader;
use pintle_store_api::{ReadError, Rejection, pb};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::auth::Authenticator;
use crate::config::Config;
use crate::consensus::log::LogStore;
use crate::consensus::state_machine::Shared;
use crate::consensus::{Node, Raft};
use crate::errors;
use crate::handle::Budget;
use crate::identity::Identity;
use crate::leadership::{Leader, Leadership};
use crate::lease;
use crate::peer::Peers;
use crate::proposer::Proposer;
use crate::quota::Quota;
use crate::read_index::ReadIndex;
use crate::watch::Hub;

/// How long a leader that hands over waits for what it has proposed.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// Counts for the metrics endpoint that nothing else keeps.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) leader_changes: AtomicU64,
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) txns: AtomicU64,
    pub(crate) ranges: AtomicU64,
    pub(crate) health: crate::http::HealthCounters,
    pub(crate) calls: crate::metrics::Calls,
}

pub(crate) struct Core {
    pub(crate) identity: Identity,
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) state: Arc<Shared>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: Leadership,
    pub(crate) proposer: Proposer,
    pub(crate) read_index: ReadIndex,
    pub(crate) leases: lease::Driver,
    pub(crate) quota: Quota,
    pub(crate) auth: Authenticator,
    pub(crate) counters: Counters,
    /// Held by the change of the membership that this leader is carrying out.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Told once this member belongs to the cluster no more.
    pub(crate) removed: CancellationToken,
    /// What large answers may hold in memory together.
    pub(crate) range_budget: Budget,
    /// Whether the leader has answered lately.
    pub(crate) has_leader: watch::Sender<bool>,
    /// Writes of other members that this one has taken and not answered.
    pub(crate) relaying: watch::Sender<usize>,
    /// Clients are served no longer: their streams end.
    pub(crate) clients_stop: CancellationToken,
    /// Peers are served no longer: their streams end.
    pub(crate) peers_stop: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn reader(&self) -> &Reader {
        &self.state.reader
    }

    /// A header at the current revision.
    pub(crate) fn header(&self) -> pb::ResponseHeader {
        self.header_at(self.reader().current_revision().0)
    }

    pub(crate) fn header_at(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision,
            raft_term: self.leadership.term(),
        }
    }

    /// Completes the header of an answer that carries its revision.
    pub(crate) fn complete(&self, header: &mut Option<pb::ResponseHeader>) {
        *header = Some(match header {
            Some(header) => self.header_at(header.revision),
            None => self.header(),
        });
    }

    /// The index of the last entry that this member has applied.
    pub(crate) fn applied_index(&self) -> u64 {
        *self.state.applied().borrow()
    }

    /// This member, as the cluster should know it.
    pub(crate) fn own_node(&self) -> Node {
        let membership = self.leadership.membership();
        let known = membership.membership().get_node(&self.identity.member_id);
        Node {
            name: self.config.name.clone(),
            peer_urls: known.map_or_else(
                || self.config.initial_advertise_peer_urls.clone(),
                |node| node.peer_urls.clone(),
            ),
            client_urls: self.config.advertise_client_urls.clone(),
            promote: known.is_some_and(|node| node.promote),
        }
    }

    /// Whether this member only listens in.
    pub(crate) fn is_learner(&self) -> bool {
        let membership = self.leadership.membership();
        let membership = membership.membership();
        let id = self.identity.member_id;
        let votes = membership.get_joint_config().iter().any(|voters| voters.contains(&id));
        !votes && membership.get_node(&id).is_some()
    }

    /// Refuses what a learner does not serve: it may be far behind.
    pub(crate) fn check_voter(&self) -> Result<(), Rejection> {
        if self.is_learner() {
            return Err(errors::other(Code::FailedPrecondition, errors::NOT_FOR_LEARNER));
        }
        Ok(())
    }

    /// Hands leadership to `target` and waits until somebody else leads. Writes wait meanwhile, and
    /// go to the next leader then.
    pub(crate) async fn move_leader(&self, target: u64) -> Result<(), ReadError> {
        let unavailable = |message: &str| ReadError::Unavailable(message.to_owned());
        let mut leadership = self.leadership.clone();
        let _held_back = self.proposer.hold_back();
        // Whatever is not applied by then gets its answer from the next leader's log.
        drop(tokio::time::timeout(DRAIN_MAX, self.proposer.drained()).await);
        let triggered = self.raft.trigger().transfer_leader(target).await;
        triggered.map_err(|_| unavailable(errors::STOPPED))?;
        let moved = async {
            while leadership.leader() == Leader::This || leadership.leader_id().is_none() {
                leadership.changed().await;
            }
        };
        let moved = tokio::time::timeout(self.config.request_timeout(), moved).await;
        moved.map_err(|_| {
            unavailable("etcdserver: request timed out, leader transfer took too long")
        })
    }

    /// Keeps `has_leader` true while the leader answers: one that went silent for three election
    /// time-outs is none.
    pub(crate) async fn watch_leader(&self) {
        let election = Duration::from_millis(self.config.election_ms);
        loop {
            let answered = tokio::time::timeout(3 * election, self.read_index.index()).await;
            let has_leader = matches!(answered, Ok(Ok(_)));
            self.has_leader
                .send_if_modified(|has| std::mem::replace(has, has_leader) != has_leader);
            tokio::time::sleep(election).await;
        }
    }
}
