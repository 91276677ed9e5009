//! Whether the leader takes a change of the membership, and as what. Pure: everything that it goes
//! by is in [`Standing`].

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use pintle_store_api::Rejection;
use tonic::Code;

use crate::consensus::{Membership, Node};
use crate::errors;

/// A learner is promoted when its log is at least this far along the leader's, in percent.
const READY_PERCENT: u64 = 90;

pub(super) type Members = ChangeMembers<u64, Node>;

/// What the leader knows.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    pub(super) own: u64,
    pub(super) membership: &'a Membership,
    pub(super) learners_max: usize,
    /// Whether the quorum is protected.
    pub(super) strict: bool,
    /// The others that have answered lately.
    pub(super) active: BTreeSet<u64>,
    /// The newest index of the leader's log.
    pub(super) last: u64,
}

fn refused(text: &str) -> Rejection {
    errors::other(Code::FailedPrecondition, text)
}

fn not_found() -> Rejection {
    errors::other(Code::NotFound, errors::MEMBER_NOT_FOUND)
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

impl Standing<'_> {
    fn voters(&self) -> Vec<u64> {
        self.membership.voter_ids().collect()
    }

    fn is_voter(&self, id: u64) -> bool {
        self.membership.voter_ids().any(|voter| voter == id)
    }

    /// Voters other than `without` that have told their name.
    fn started(&self, without: Option<u64>) -> usize {
        let named = |id: &u64| {
            Some(*id) != without
                && self.membership.get_node(id).is_some_and(|node| !node.name.is_empty())
        };
        self.voters().iter().filter(|id| named(id)).count()
    }

    fn active_voters(&self) -> usize {
        let active = |id: &&u64| **id == self.own || self.active.contains(id);
        self.voters().iter().filter(active).count()
    }

    /// A new member. It listens first, whatever it is to become.
    pub(super) fn add(&self, id: u64, node: Node) -> Result<Members, Rejection> {
        if self.strict {
            self.check_add(&node)?;
        }
        if self.membership.get_node(&id).is_some() {
            return Err(refused(errors::MEMBER_EXISTS));
        }
        self.check_urls(id, &node)?;
        if !node.promote && self.learners() >= self.learners_max {
            return Err(refused(errors::TOO_MANY_LEARNERS));
        }
        Ok(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])))
    }

    fn check_add(&self, node: &Node) -> Result<(), Rejection> {
        let voters = self.voters().len();
        let started = self.started(None);
        // A member on its own may always be joined: that is how a cluster is built up again.
        let alone = started == 1 && voters == 1;
        if node.promote && !alone && started < quorum(voters + 1) {
            return Err(refused(errors::NOT_ENOUGH_STARTED));
        }
        if voters > 1 && self.active_voters() < quorum(voters + 1) {
            return Err(errors::other(Code::Unavailable, errors::UNHEALTHY));
        }
        Ok(())
    }

    /// Learners that are to stay such.
    fn learners(&self) -> usize {
        let stays = |id: &u64| self.membership.get_node(id).is_some_and(|node| !node.promote);
        self.membership.learner_ids().filter(stays).count()
    }

    fn check_urls(&self, id: u64, node: &Node) -> Result<(), Rejection> {
        let taken = |(other, known): (&u64, &Node)| {
            *other != id && known.peer_urls.iter().any(|url| node.peer_urls.contains(url))
        };
        if self.membership.nodes().any(taken) {
            return Err(refused(errors::PEER_URL_EXISTS));
        }
        Ok(())
    }

    /// What is known of a member.
    pub(super) fn set(&self, id: u64, node: Node) -> Result<Members, Rejection> {
        self.membership.get_node(&id).ok_or_else(not_found)?;
        self.check_urls(id, &node)?;
        Ok(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])))
    }

    /// A learner becomes a voter; `matched` is how far its log is the leader's. `by_hand` is a
    /// client's wish, and not the leader's own.
    pub(super) fn promote(
        &self,
        id: u64,
        matched: Option<u64>,
        by_hand: bool,
    ) -> Result<Members, Rejection> {
        let node = self.membership.get_node(&id).ok_or_else(not_found)?;
        if self.is_voter(id) || (by_hand && node.promote) {
            return Err(refused(errors::NOT_LEARNER));
        }
        if matched.unwrap_or(0) * 100 < self.last * READY_PERCENT {
            return Err(refused(errors::LEARNER_NOT_READY));
        }
        if self.strict && self.started(None) + 1 < quorum(self.voters().len() + 1) {
            return Err(refused(errors::NOT_ENOUGH_STARTED));
        }
        Ok(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
    }

    /// A member goes.
    pub(super) fn remove(&self, id: u64) -> Result<Members, Rejection> {
        self.membership.get_node(&id).ok_or_else(not_found)?;
        let ids = BTreeSet::from([id]);
        if !self.is_voter(id) {
            return Ok(ChangeMembers::RemoveNodes(ids));
        }
        if self.strict {
            self.check_remove(id)?;
        }
        Ok(ChangeMembers::RemoveVoters(ids))
    }

    fn check_remove(&self, id: u64) -> Result<(), Rejection> {
        let rest = self.voters().len() - 1;
        if self.started(Some(id)) < quorum(rest) {
            return Err(refused(errors::NOT_ENOUGH_STARTED));
        }
        let is_down = id != self.own && !self.active.contains(&id);
        if !is_down && self.active_voters() - 1 < quorum(rest) {
            return Err(errors::other(Code::Unavailable, errors::UNHEALTHY));
        }
        Ok(())
    }
}

/// Whether etcd would take these as a member's addresses.
pub(crate) fn are_peer_urls(urls: &[String]) -> bool {
    !urls.is_empty() && urls.iter().all(|url| is_peer_url(url.trim()))
}

fn is_peer_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(host_port) = rest else { return false };
    match host_port.rsplit_once(':') {
        Some((host, port)) => {
            let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
            bare && !host.contains('/') && port.parse::<u16>().is_ok()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            peer_urls: vec![format!("http://{name}:2380")],
            ..Node::default()
        }
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        let name = |id: &u64| (*id, node(&format!("m{id}")));
        let nodes: BTreeMap<u64, Node> = voters.iter().chain(learners).map(name).collect();
        Membership::new(vec![voters.iter().copied().collect()], nodes).expect("voters have nodes")
    }

    fn standing<'a>(membership: &'a Membership, active: &[u64]) -> Standing<'a> {
        let active = active.iter().copied().collect();
        Standing { own: 1, membership, learners_max: 1, strict: true, active, last: 100 }
    }

    fn joining(promote: bool) -> Node {
        let peer_urls = vec!["http://new:2380".to_owned()];
        Node { peer_urls, promote, ..Node::default() }
    }

    fn text<T: std::fmt::Debug>(result: Result<T, Rejection>) -> String {
        result.map_or_else(|rejection| rejection.to_string(), |taken| format!("{taken:?}"))
    }

    #[test]
    fn a_member_alone_may_always_be_joined() {
        let alone = membership(&[1], &[]);
        assert!(standing(&alone, &[]).add(2, joining(true)).is_ok());
        assert!(standing(&alone, &[]).add(2, joining(false)).is_ok());
    }

    #[test]
    fn an_unhealthy_cluster_takes_no_new_member() {
        let three = membership(&[1, 2, 3], &[]);
        assert!(standing(&three, &[2, 3]).add(4, joining(true)).is_ok());
        assert_eq!(text(standing(&three, &[2]).add(4, joining(true))), errors::UNHEALTHY);
        let careless = Standing { strict: false, ..standing(&three, &[]) };
        assert!(careless.add(4, joining(true)).is_ok());
    }

    #[test]
    fn members_that_never_started_count_against_a_change() {
        let mut nodes: BTreeMap<u64, Node> =
            (1..=3).map(|id| (id, node(&format!("m{id}")))).collect();
        nodes.get_mut(&2).expect("there").name.clear();
        nodes.get_mut(&3).expect("there").name.clear();
        let three = Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes).expect("valid");
        let standing = standing(&three, &[2, 3]);
        assert_eq!(text(standing.add(4, joining(true))), errors::NOT_ENOUGH_STARTED);
        assert_eq!(text(standing.remove(1)), errors::NOT_ENOUGH_STARTED);
    }

    #[test]
    fn addresses_and_learners_are_limited() {
        let two = membership(&[1], &[2]);
        let standing = standing(&two, &[2]);
        let taken =
            Node { peer_urls: vec!["http://m1:2380".into()], promote: true, ..Node::default() };
        assert_eq!(text(standing.add(3, taken.clone())), errors::PEER_URL_EXISTS);
        assert_eq!(text(standing.set(2, taken.clone())), errors::PEER_URL_EXISTS);
        assert!(standing.set(1, taken).is_ok(), "its own address is not taken");
        assert_eq!(text(standing.add(3, joining(false))), errors::TOO_MANY_LEARNERS);
        assert!(standing.add(3, joining(true)).is_ok(), "a voter to be is no learner");
        assert_eq!(text(standing.add(2, joining(true))), errors::MEMBER_EXISTS);
        assert_eq!(text(standing.set(9, joining(true))), errors::MEMBER_NOT_FOUND);
    }

    #[test]
    fn a_learner_is_promoted_when_it_has_caught_up() {
        let two = membership(&[1], &[2]);
        let standing = standing(&two, &[2]);
        assert_eq!(text(standing.promote(2, Some(89), true)), errors::LEARNER_NOT_READY);
        assert_eq!(text(standing.promote(2, None, true)), errors::LEARNER_NOT_READY);
        assert!(standing.promote(2, Some(90), true).is_ok());
        assert_eq!(text(standing.promote(1, Some(100), true)), errors::NOT_LEARNER);
        assert_eq!(text(standing.promote(9, Some(100), true)), errors::MEMBER_NOT_FOUND);
    }

    #[test]
    fn removal_never_costs_the_quorum() {
        let three = membership(&[1, 2, 3], &[4]);
        assert!(standing(&three, &[2, 3]).remove(3).is_ok());
        assert!(standing(&three, &[2, 3]).remove(1).is_ok(), "the leader too");
        assert!(standing(&three, &[2]).remove(3).is_ok(), "a dead member");
        assert_eq!(text(standing(&three, &[2]).remove(2)), errors::UNHEALTHY);
        assert!(standing(&three, &[]).remove(4).is_ok(), "a learner has no vote");
        assert_eq!(text(standing(&three, &[2, 3]).remove(9)), errors::MEMBER_NOT_FOUND);
        let alone = membership(&[1], &[]);
        assert_eq!(text(standing(&alone, &[]).remove(1)), errors::NOT_ENOUGH_STARTED);
    }

    #[test]
    fn only_addresses_with_scheme_and_port_are_peer_urls() {
        let list = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        assert!(are_peer_urls(&list(&["http://a:1", "https://[::1]:2380"])));
        for bad in ["a:1", "ftp://a:1", "http://a", "http://a:1/path", "http://a:x", "http://::1:2"]
        {
            assert!(!are_peer_urls(&list(&[bad])), "{bad}");
        }
        assert!(!are_peer_urls(&[]));
    }
}
