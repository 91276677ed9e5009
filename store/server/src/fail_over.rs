//! Noticing at once that the leader's process is gone.
//!
//! Every follower has a call open at the leader that ends when the leader steps down. When a process
//! dies, its machine closes its connections, and the call breaks. The follower calls again: only
//! when nobody listens there any more does it stop believing in this leader and ask for votes. A
//! machine that is cut off or loses power says nothing; for that there is the election time-out.
//!
//! This decides when an election begins and nothing else: votes are counted as ever, and those who
//! still hear the leader refuse theirs. Reads do not rest on a leader that is believed for some time
//! (`read_index` asks a majority), so an election that begins early makes none of them stale.

use std::sync::Arc;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;
use pintle_proto::raft::AttendRequest;

use crate::consensus::{Node, Vote};
use crate::core::Core;
use crate::errors;
use crate::leadership::{Leader, Leadership};
use crate::peer::Lane;

/// The others notice within about this time, and refuse their votes before.
const NOTICE: Duration = Duration::from_millis(3);
/// Whoever is next in turn stands so much later: an election with a slow disk takes less, so that
/// two members seldom stand at once.
const STAGGER: Duration = Duration::from_millis(40);
/// Between two attempts of a member, at first; then twice as long each time.
const AGAIN: Duration = Duration::from_millis(80);
/// Then the election timer is left to it.
const ATTEMPTS: u32 = 5;
/// How soon a call that broke is made again, and how seldom one that fails.
const CALL_AGAIN_MIN: Duration = Duration::from_millis(1);
const CALL_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Runs while the member does.
pub(crate) async fn run(core: Arc<Core>) {
    let mut leadership = core.leadership.clone();
    loop {
        let vote = leadership.vote();
        let Leader::Other(leader, node) = leadership.leader() else {
            leadership.changed().await;
            continue;
        };
        tokio::select! {
            () = gone(&core, leader, &node) => stand(&core, leader, vote).await,
            () = leadership.clone().superseded(vote) => {}
        }
    }
}

/// Resolves when nobody listens any more where the leader was met.
async fn gone(core: &Core, leader: u64, node: &Node) {
    let mut met = false;
    let mut pause = CALL_AGAIN_MIN;
    loop {
        match attend(core, leader, node).await {
            Attended::Met => (met, pause) = (true, CALL_AGAIN_MIN),
            Attended::Refused if met => return,
            Attended::Refused | Attended::Failed => pause = (2 * pause).min(CALL_AGAIN_MAX),
        }
        tokio::time::sleep(pause).await;
    }
}

/// What became of a call at the leader.
enum Attended {
    /// It was taken, and has ended since.
    Met,
    /// Nobody listens.
    Refused,
    Failed,
}

async fn attend(core: &Core, leader: u64, node: &Node) -> Attended {
    let Ok(mut client) = core.peers.client(node, Lane::Control) else { return Attended::Failed };
    let request = AttendRequest { addressed: Some(core.peers.addressed(leader)) };
    let mut call = match client.attend(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if errors::is_refused(&status) => return Attended::Refused,
        Err(_) => return Attended::Failed,
    };
    while let Ok(Some(_)) = call.message().await {}
    Attended::Met
}

/// Stops believing in the leader that `vote` made, and stands for election when it is this member's
/// turn, until there is another leader.
async fn stand(core: &Core, leader: u64, vote: Vote) {
    tracing::warn!(leader, "the leader's process is gone");
    // Addressed to another member, this only ends what openraft calls the lease of the leader.
    let ends_lease = TransferLeaderRequest::new(vote, leader, None);
    if core.raft.handle_transfer_leader(ends_lease).await.is_err() {
        return;
    }
    let membership = core.leadership.membership();
    let voters = membership.membership().voter_ids().filter(|id| *id != leader);
    let own = core.identity.member_id;
    let Some(turn) = turn(voters, own, core.leadership.term()) else { return };
    for attempt in 0..ATTEMPTS {
        tokio::select! {
            () = followed(core.leadership.clone(), vote) => return,
            () = tokio::time::sleep(pause(turn, attempt, rand::random())) => {}
        }
        if core.raft.trigger().elect(core.config.pre_vote).await.is_err() {
            return;
        }
    }
}

/// Resolves when there is a leader after the one that `vote` made.
async fn followed(mut leadership: Leadership, vote: Vote) {
    while leadership.vote() == vote || leadership.leader() == Leader::Unknown {
        leadership.changed().await;
    }
}

/// When it is this member's turn among those that are left: another order each term, because
/// whoever has the shorter log stands in vain. `None` for one that has no vote.
fn turn(voters: impl Iterator<Item = u64>, own: u64, term: u64) -> Option<u32> {
    let mut voters: Vec<u64> = voters.collect();
    voters.sort_unstable();
    let place = voters.iter().position(|id| *id == own)? as u64;
    let count = voters.len() as u64;
    u32::try_from((place + term) % count).ok()
}

/// How long to wait before an attempt; `chance` is below 1.
fn pause(turn: u32, attempt: u32, chance: f64) -> Duration {
    match attempt {
        0 => NOTICE + turn * STAGGER + NOTICE.mul_f64(chance),
        _ => (2_u32.pow(attempt - 1) * AGAIN).mul_f64(1.0 + chance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voter_that_is_left_has_a_turn_of_its_own() {
        for term in 0..10 {
            let turns = [70, 20, 50].map(|own| turn([50, 70, 20].into_iter(), own, term));
            let mut sorted = turns.map(|turn| turn.expect("a voter"));
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2], "term {term}");
        }
        assert_eq!(turn([50, 70].into_iter(), 20, 1), None, "a learner");
        assert_ne!(turn([5, 7].into_iter(), 5, 1), turn([5, 7].into_iter(), 5, 2));
    }

    #[test]
    fn the_next_in_turn_leaves_the_one_before_time_to_win() {
        let latest = pause(0, 0, 0.999);
        assert!(pause(1, 0, 0.0) >= latest + STAGGER - NOTICE);
        assert!(pause(0, 1, 0.0) >= AGAIN && pause(0, 1, 0.999) < 2 * AGAIN);
        assert_eq!(pause(3, 3, 0.0), 4 * AGAIN);
    }
}
