//! Whether all members hold the same: the leader compares its hash with everybody's, at its
//! newest revision or at the compact floor, and raises CORRUPT where they differ.
//!
//! A member that does not answer, or has not come as far, tells nothing. Whom the alarm is about
//! is decided by pure functions; the task only asks and waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pintle_mvcc::QueryError;
use pintle_proto::raft::PeerHashRequest;
use pintle_store_api::pb::AlarmType;
use pintle_store_api::{ReadError, Revision, pb};

use crate::alarms;
use crate::consensus::{Node, StoredMembership};
use crate::core::Core;
use crate::host::blocking;
use crate::peer::Lane;

/// A hash of what lies between the compact floor and a revision (0: the newest), off this thread.
pub(crate) async fn hash(core: &Core, revision: i64) -> Result<pb::HashKvResponse, ReadError> {
    let reader = core.reader().clone();
    let hash = move || reader.hash_kv(Revision(revision));
    let answer = blocking(hash).await;
    let unavailable = |text: String| ReadError::Unavailable(text);
    let mut response =
        answer.map_err(|error| unavailable(error.to_string()))?.map_err(|error| match error {
            QueryError::Rejected(rejection) => rejection.into(),
            QueryError::Fault(fault) => unavailable(fault.to_string()),
        })?;
    core.complete(&mut response.header);
    Ok(response)
}

/// What a hash says, without who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    /// The newest revision of the member.
    newest: i64,
    floor: i64,
    revision: i64,
    hash: u32,
}

impl From<&pb::HashKvResponse> for Sum {
    fn from(response: &pb::HashKvResponse) -> Self {
        Self {
            newest: response.header.as_ref().map_or(0, |header| header.revision),
            floor: response.compact_revision,
            revision: response.hash_revision,
            hash: response.hash,
        }
    }
}

/// Members and what they answered.
type Answers = BTreeMap<u64, Sum>;

/// The member that is wrong, judged by the leader's hash before and after it asked the others.
fn suspect(own: u64, before: Sum, after: Sum, others: &Answers) -> Option<u64> {
    let same_place = after.revision == before.revision && after.floor == before.floor;
    if same_place && after.hash != before.hash {
        return Some(own);
    }
    let wrong = |other: &Sum| {
        other.newest > after.newest
            || other.floor > after.floor
            || (other.floor == before.floor && other.hash != before.hash)
    };
    others.iter().find(|(_, other)| wrong(other)).map(|(id, _)| *id)
}

/// The minority at one compact floor; 0 when no hash has a majority of `members`.
fn minority(own: u64, leader: Sum, others: &Answers, members: usize) -> Vec<u64> {
    let mut by_hash: BTreeMap<u32, Vec<u64>> = BTreeMap::from([(leader.hash, vec![own])]);
    for (id, other) in others.iter().filter(|(_, other)| other.floor == leader.floor) {
        by_hash.entry(other.hash).or_default().push(*id);
    }
    if by_hash.len() == 1 {
        return Vec::new();
    }
    let quorum = members / 2 + 1;
    let majority = by_hash.iter().find(|(_, ids)| ids.len() >= quorum).map(|(hash, _)| *hash);
    match majority {
        None => vec![0],
        Some(majority) => by_hash
            .into_iter()
            .filter(|(hash, _)| *hash != majority)
            .flat_map(|(_, ids)| ids)
            .collect(),
    }
}

/// Everybody's hash but this member's.
async fn ask_others(core: &Core, membership: &StoredMembership, revision: i64) -> Answers {
    let own = core.identity.member_id;
    let others: Vec<(u64, Node)> = membership
        .membership()
        .nodes()
        .filter(|(id, _)| **id != own)
        .map(|(id, node)| (*id, node.clone()))
        .collect();
    let asked = others.into_iter().map(|(id, node)| async move {
        let mut client = core.peers.client(&node, Lane::Bulk).ok()?;
        let request = PeerHashRequest { addressed: Some(core.peers.addressed(id)), revision };
        match client.hash_kv(request).await {
            Ok(answer) => Some((id, Sum::from(&answer.into_inner()))),
            Err(status) => {
                tracing::debug!(member = id, %status, "no hash to compare");
                None
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Compares at the newest revision every so often, while this member leads.
pub(crate) async fn check_newest(core: Arc<Core>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !core.leadership.is_leader() {
            continue;
        }
        if let Err(error) = compare_newest(&core).await {
            tracing::debug!(%error, "hashes were not compared");
        }
    }
}

async fn compare_newest(core: &Core) -> Result<(), ReadError> {
    let before = Sum::from(&hash(core, 0).await?);
    let others = ask_others(core, &core.leadership.membership(), before.revision).await;
    core.read_index.wait().await?;
    let after = Sum::from(&hash(core, 0).await?);
    let own = core.identity.member_id;
    if let Some(wrong) = suspect(own, before, after, &others) {
        tracing::error!(member = wrong, leader = ?before, ?others, "members hold different data");
        alarms::raise(core, AlarmType::Corrupt, wrong).await;
    }
    Ok(())
}

/// Compares at the compact floor, once after each compaction, while this member leads.
pub(crate) async fn check_compacted(core: Arc<Core>, every: Duration) {
    let mut compared = 0;
    loop {
        tokio::time::sleep(every).await;
        let Revision(floor) = core.reader().compact_revision();
        if core.leadership.is_leader() && floor > compared {
            match compare_compacted(&core, floor).await {
                Ok(true) => compared = floor,
                // Somebody did not answer: once more next time.
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "hashes were not compared"),
            }
        }
    }
}

/// Whether everybody's hash was compared.
async fn compare_compacted(core: &Core, floor: i64) -> Result<bool, ReadError> {
    let leader = Sum::from(&hash(core, floor).await?);
    let membership = core.leadership.membership();
    let others = ask_others(core, &membership, floor).await;
    let own = core.identity.member_id;
    let members = membership.membership().nodes().count();
    let wrong = minority(own, leader, &others, members);
    if !wrong.is_empty() {
        tracing::error!(members = ?wrong, ?leader, ?others, "members hold different data");
    }
    for member in &wrong {
        alarms::raise(core, AlarmType::Corrupt, *member).await;
    }
    let compared = others.values().filter(|other| other.floor == leader.floor).count();
    Ok(!wrong.is_empty() || compared + 1 == members)
}

/// Whether another member holds something else at this member's revision: such a one must not start.
pub(crate) async fn differs_from_others(core: &Core) -> bool {
    let own = match hash(core, 0).await {
        Ok(own) => Sum::from(&own),
        Err(error) => {
            tracing::error!(%error, "the own data cannot be read");
            return true;
        }
    };
    // Consensus may not have told yet whom it knows; the state has, since it was opened.
    let others = ask_others(core, &core.state.membership(), own.revision).await;
    others.values().any(|other| other.floor == own.floor && other.hash != own.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Sum = Sum { newest: 9, floor: 3, revision: 9, hash: 1 };

    fn others(sums: &[(u64, Sum)]) -> Answers {
        sums.iter().copied().collect()
    }

    #[test]
    fn equal_hashes_raise_nothing() {
        let all = others(&[(2, FINE), (3, Sum { newest: 8, ..FINE })]);
        assert_eq!(suspect(1, FINE, FINE, &all), None);
        assert!(minority(1, FINE, &all, 3).is_empty());
    }

    #[test]
    fn a_follower_that_differs_is_named() {
        let differs = Sum { hash: 2, ..FINE };
        assert_eq!(suspect(1, FINE, FINE, &others(&[(2, FINE), (3, differs)])), Some(3));
        let ahead = Sum { newest: 10, ..FINE };
        assert_eq!(suspect(1, FINE, FINE, &others(&[(2, ahead)])), Some(2));
        let floor = Sum { floor: 4, ..FINE };
        assert_eq!(suspect(1, FINE, FINE, &others(&[(2, floor)])), Some(2));
    }

    #[test]
    fn another_floor_cannot_be_compared() {
        let behind = Sum { floor: 2, hash: 7, ..FINE };
        assert_eq!(suspect(1, FINE, FINE, &others(&[(2, behind)])), None);
        assert!(minority(1, FINE, &others(&[(2, behind)]), 3).is_empty());
    }

    #[test]
    fn a_leader_that_contradicts_itself_is_named() {
        let after = Sum { hash: 2, ..FINE };
        assert_eq!(suspect(1, FINE, after, &others(&[])), Some(1));
        let moved = Sum { newest: 10, revision: 10, hash: 2, ..FINE };
        assert_eq!(suspect(1, FINE, moved, &others(&[])), None, "it has only gone on");
    }

    #[test]
    fn the_minority_is_wrong_and_without_a_majority_nobody_knows() {
        let two = Sum { hash: 2, ..FINE };
        let three = Sum { hash: 3, ..FINE };
        assert_eq!(minority(1, FINE, &others(&[(2, FINE), (3, two)]), 3), [3]);
        assert_eq!(minority(1, FINE, &others(&[(2, two), (3, two)]), 3), [1]);
        assert_eq!(minority(1, FINE, &others(&[(2, two), (3, three)]), 3), [0]);
        assert_eq!(minority(1, FINE, &others(&[(2, two)]), 3), [0], "one did not answer");
    }
}
