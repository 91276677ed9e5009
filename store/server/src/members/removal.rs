//! How a member learns that it is one no more. The cluster stops talking to it, so it has to ask.

use std::sync::Arc;
use std::time::Duration;

use pintle_proto::raft::{ClusterInfoRequest, ClusterInfoResponse};

use crate::core::Core;
use crate::peer::Lane;

/// What a removed member says when it ends.
pub(crate) const REMOVED: &str = "the member has been permanently removed from the cluster";

/// How often a member without a leader asks whether it still belongs.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Whether a leader, as new as any that this member knows, has it neither among its members nor
/// among those of the newest certain change. Who only follows may lag behind the joining of one.
fn is_removed(own: u64, term: u64, answer: &ClusterInfoResponse) -> bool {
    let members = answer.membership.iter().flat_map(|membership| &membership.members);
    let listed = members.map(|member| member.id).chain(answer.applied_members.iter().copied());
    answer.leads && answer.term >= term && !listed.into_iter().any(|id| id == own)
}

/// Runs until it is removed.
pub(crate) async fn watch(core: Arc<Core>) {
    let own = core.identity.member_id;
    let mut belonged = false;
    loop {
        // Whoever leads applies its own removal.
        let belongs = core.state.membership().membership().get_node(&own).is_some();
        let removed = belonged && !belongs;
        belonged = belongs;
        if removed || (!*core.has_leader.borrow() && ask(&core).await) {
            tracing::error!("{REMOVED}");
            core.removed.cancel();
            return;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask(core: &Core) -> bool {
    let (own, term) = (core.identity.member_id, core.leadership.term());
    let membership = core.leadership.membership();
    for (_, node) in membership.membership().nodes().filter(|(id, _)| **id != own) {
        let Ok(mut client) = core.peers.client(node, Lane::Control) else { continue };
        let Ok(answer) = client.cluster_info(ClusterInfoRequest {}).await else { continue };
        let answer = answer.into_inner();
        // The address may belong to another cluster by now.
        if answer.cluster_id == core.identity.cluster_id && is_removed(own, term, &answer) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use pintle_proto::raft::{MemberEntry, Membership};

    use super::*;

    fn answer(term: u64, leads: bool, members: &[u64], applied: &[u64]) -> ClusterInfoResponse {
        let member = |id: &u64| MemberEntry { id: *id, info: None };
        let members = members.iter().map(member).collect();
        ClusterInfoResponse {
            membership: Some(Membership { configs: Vec::new(), members }),
            applied_members: applied.to_vec(),
            leads,
            term,
            ..Default::default()
        }
    }

    #[test]
    fn only_a_leader_that_knows_it_nowhere_removes_a_member() {
        assert!(is_removed(3, 5, &answer(5, true, &[1, 2], &[1, 2])));
        assert!(!is_removed(3, 5, &answer(5, true, &[1, 2, 3], &[1, 2])), "it has just been added");
        assert!(!is_removed(3, 5, &answer(5, true, &[1, 2], &[1, 2, 3])), "not certain yet");
        assert!(!is_removed(3, 5, &answer(5, false, &[1, 2], &[1, 2])), "a follower may lag");
        assert!(!is_removed(3, 5, &answer(4, true, &[1, 2], &[1, 2])), "an old leader");
    }
}
