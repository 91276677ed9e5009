//! Deadlines of leases, on the leader's clock.
//!
//! Only time-to-live values are replicated; when a lease ends is the current leader's judgement.
//! This structure holds no clock: every method is told the time, in milliseconds of any
//! monotonic clock. A follower keeps no deadlines; a new leader calls [`Lessor::promote`].

use std::collections::{BTreeMap, BTreeSet};

use pintle_proto::raft::LeaseRemaining;
use pintle_store_api::LeaseId;

use crate::Lease;

/// How fast leases are revoked and checkpointed. The defaults are etcd's.
#[derive(Clone, Debug)]
pub struct LessorConfig {
    /// A lease that was reported expired is reported again after this long, unless it was revoked.
    pub retry_ms: u64,
    /// A lease that has longer than this to live is checkpointed this often.
    pub checkpoint_interval_ms: u64,
    /// When a promotion finds this many leases or more, their deadlines are spread so that fewer
    /// than this fall into one second.
    pub revoke_per_second_max: u64,
}

impl Default for LessorConfig {
    fn default() -> Self {
        Self { retry_ms: 3_000, checkpoint_interval_ms: 300_000, revoke_per_second_max: 1_000 }
    }
}

/// The answer to a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Extended to its full time to live.
    Extended {
        /// Seconds.
        ttl: i64,
        /// A checkpoint is recorded: replicate a remaining time of 0 for it before answering, or a
        /// later leader would take the lease for shorter than it is.
        clear_checkpoint: bool,
    },
    /// Its deadline has passed: wait until it is revoked (then it is unknown), or demotion.
    Expired,
    /// No such lease: the client is told TTL 0.
    Unknown,
}

/// The deadlines of all leases while this member leads.
#[derive(Debug)]
pub struct Lessor {
    config: LessorConfig,
    primary: bool,
    leases: BTreeMap<LeaseId, Term>,
    /// When to report a lease as expired: its deadline, or the next retry.
    expiries: BTreeSet<(u64, LeaseId)>,
    checkpoints: BTreeSet<(u64, LeaseId)>,
}

/// How long one lease still has.
#[derive(Debug)]
struct Term {
    ttl: i64,
    /// As replicated; 0: none.
    remaining_ttl: i64,
    deadline_ms: u64,
    /// Its place in `expiries`.
    report_ms: u64,
    /// Its place in `checkpoints`.
    checkpoint_ms: Option<u64>,
}

impl Default for Lessor {
    fn default() -> Self {
        Self::new(LessorConfig::default())
    }
}

impl Lessor {
    /// One that is not primary: it knows no deadlines.
    pub fn new(config: LessorConfig) -> Self {
        let (leases, expiries, checkpoints) = Default::default();
        Self { config, primary: false, leases, expiries, checkpoints }
    }

    /// Whether this member keeps the deadlines.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// This member leads now: every lease runs from `now_ms` for what remains of it, plus
    /// `extend_ms` (the election took time in which nobody could renew).
    pub fn promote(
        &mut self,
        now_ms: u64,
        extend_ms: u64,
        leases: impl IntoIterator<Item = Lease>,
    ) {
        self.demote();
        self.primary = true;
        let mut due: Vec<(u64, Lease)> = leases
            .into_iter()
            .map(|lease| {
                let left =
                    if lease.remaining_ttl > 0 { lease.remaining_ttl } else { lease.granted_ttl };
                (after(now_ms, left).saturating_add(extend_ms), lease)
            })
            .collect();
        due.sort_by_key(|(deadline_ms, lease)| (*deadline_ms, lease.id));
        let spacing_us = self.spacing_us(due.len());
        let mut earliest_us = 0;
        for (deadline_ms, lease) in due {
            let deadline_us = deadline_ms.saturating_mul(1_000).max(earliest_us);
            earliest_us = deadline_us.saturating_add(spacing_us);
            self.insert(&lease, deadline_us / 1_000, now_ms);
        }
    }

    /// The distance between deadlines after a promotion: none for few leases; for many, so that a
    /// second holds three quarters of what may be revoked in it.
    fn spacing_us(&self, leases: usize) -> u64 {
        if (leases as u64) < self.config.revoke_per_second_max {
            return 0;
        }
        1_000_000 / (self.config.revoke_per_second_max * 3 / 4).max(1)
    }

    /// This member leads no longer: forgets all deadlines.
    pub fn demote(&mut self) {
        self.primary = false;
        self.leases.clear();
        self.expiries.clear();
        self.checkpoints.clear();
    }

    /// A grant was applied.
    pub fn granted(&mut self, id: LeaseId, ttl: i64, now_ms: u64) {
        if self.primary {
            let lease = Lease { id, granted_ttl: ttl, remaining_ttl: 0 };
            self.insert(&lease, after(now_ms, ttl), now_ms);
        }
    }

    /// A revoke was applied.
    pub fn revoked(&mut self, id: LeaseId) {
        if let Some(term) = self.leases.remove(&id) {
            self.expiries.remove(&(term.report_ms, id));
            if let Some(checkpoint_ms) = term.checkpoint_ms {
                self.checkpoints.remove(&(checkpoint_ms, id));
            }
        }
    }

    /// A checkpoint was applied.
    pub fn checkpointed(&mut self, id: LeaseId, remaining_ttl: i64, now_ms: u64) {
        if let Some(term) = self.leases.get_mut(&id) {
            term.remaining_ttl = remaining_ttl;
            self.schedule_checkpoint(id, now_ms);
        }
    }

    /// A keep-alive.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Renewal {
        let Some(term) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        if term.deadline_ms <= now_ms {
            return Renewal::Expired;
        }
        let (ttl, clear_checkpoint) = (term.ttl, term.remaining_ttl > 0);
        self.expiries.remove(&(term.report_ms, id));
        term.deadline_ms = after(now_ms, ttl);
        term.report_ms = term.deadline_ms;
        self.expiries.insert((term.report_ms, id));
        Renewal::Extended { ttl, clear_checkpoint }
    }

    /// Seconds until the deadline, as LeaseTimeToLive reports them; `None` for an unknown lease.
    pub fn time_to_live(&self, id: LeaseId, now_ms: u64) -> Option<i64> {
        let left_ms = self.leases.get(&id)?.deadline_ms.saturating_sub(now_ms);
        Some(i64::try_from(left_ms / 1_000).unwrap_or(i64::MAX))
    }

    /// Up to `limit` leases whose deadline has passed, oldest deadline first: propose their
    /// revoke. Each is reported again after [`LessorConfig::retry_ms`] until it is revoked.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        let due = self.expiries.iter().take_while(|(at_ms, _)| *at_ms <= now_ms).take(limit);
        let due: Vec<(u64, LeaseId)> = due.copied().collect();
        let retry_ms = now_ms.saturating_add(self.config.retry_ms.max(1));
        for (at_ms, id) in &due {
            self.expiries.remove(&(*at_ms, *id));
            self.expiries.insert((retry_ms, *id));
            self.leases.get_mut(id).expect("every expiry has its lease").report_ms = retry_ms;
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Up to `limit` remaining times to replicate, so that a new leader does not start afresh.
    pub fn due_checkpoints(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseRemaining> {
        let mut due = Vec::new();
        while let Some(&(at_ms, id)) = self.checkpoints.first()
            && at_ms <= now_ms
            && due.len() < limit
        {
            self.checkpoints.remove(&(at_ms, id));
            let term = self.leases.get_mut(&id).expect("every checkpoint has its lease");
            term.checkpoint_ms = None;
            let left_ms = term.deadline_ms.saturating_sub(now_ms);
            let ttl = i64::try_from(left_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
            // A lease that was renewed just now has nothing to tell; its next round comes.
            if ttl > 0 && ttl < term.ttl {
                due.push(LeaseRemaining { id: id.0, ttl });
            } else if ttl > 0 {
                self.schedule_checkpoint(id, now_ms);
            }
        }
        due
    }

    /// When the next of [`Lessor::expired`] and [`Lessor::due_checkpoints`] has something.
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = |queue: &BTreeSet<(u64, LeaseId)>| queue.first().map(|(at_ms, _)| *at_ms);
        first(&self.expiries).into_iter().chain(first(&self.checkpoints)).min()
    }

    fn insert(&mut self, lease: &Lease, deadline_ms: u64, now_ms: u64) {
        let Lease { id, granted_ttl: ttl, remaining_ttl } = *lease;
        self.revoked(id);
        let report_ms = deadline_ms;
        let term = Term { ttl, remaining_ttl, deadline_ms, report_ms, checkpoint_ms: None };
        self.leases.insert(id, term);
        self.expiries.insert((report_ms, id));
        self.schedule_checkpoint(id, now_ms);
    }

    /// Only leases that outlive the interval are worth a log entry.
    fn schedule_checkpoint(&mut self, id: LeaseId, now_ms: u64) {
        let Some(term) = self.leases.get_mut(&id) else { return };
        if let Some(at_ms) = term.checkpoint_ms.take() {
            self.checkpoints.remove(&(at_ms, id));
        }
        let left = if term.remaining_ttl > 0 { term.remaining_ttl } else { term.ttl };
        let interval_ms = self.config.checkpoint_interval_ms;
        if after(0, left) > interval_ms {
            let at_ms = now_ms.saturating_add(interval_ms);
            term.checkpoint_ms = Some(at_ms);
            self.checkpoints.insert((at_ms, id));
        }
    }
}

/// `seconds` after `now_ms`.
fn after(now_ms: u64, seconds: i64) -> u64 {
    now_ms.saturating_add(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn lease(id: LeaseId, granted_ttl: i64, remaining_ttl: i64) -> Lease {
        Lease { id, granted_ttl, remaining_ttl }
    }

    fn primary() -> Lessor {
        let mut lessor = Lessor::default();
        lessor.promote(0, 0, []);
        lessor
    }

    #[test]
    fn a_follower_keeps_no_deadlines() {
        let mut lessor = Lessor::default();
        lessor.granted(A, 5, 0);
        assert_eq!(lessor.renew(A, 0), Renewal::Unknown);
        assert_eq!(lessor.expired(u64::MAX, 10), []);
        assert_eq!(lessor.next_due_ms(), None);
    }

    #[test]
    fn leases_expire_in_the_order_of_their_deadlines() {
        let mut lessor = primary();
        lessor.granted(A, 20, 0);
        lessor.granted(B, 10, 0);
        assert_eq!(lessor.next_due_ms(), Some(10_000));
        assert_eq!(lessor.expired(9_999, 10), []);
        assert_eq!(lessor.expired(10_000, 10), [B]);
        assert_eq!(lessor.expired(60_000, 1), [B], "reported again until revoked");
        lessor.revoked(B);
        assert_eq!(lessor.expired(60_000, 10), [A]);
        assert_eq!(lessor.expired(62_999, 10), []);
        lessor.revoked(A);
        assert_eq!(lessor.next_due_ms(), None);
    }

    #[test]
    fn a_renewal_starts_the_time_to_live_afresh() {
        let mut lessor = primary();
        lessor.granted(A, 10, 0);
        let extended = Renewal::Extended { ttl: 10, clear_checkpoint: false };
        assert_eq!(lessor.renew(A, 9_000), extended);
        assert_eq!(lessor.expired(18_999, 10), []);
        assert_eq!(lessor.time_to_live(A, 9_500), Some(9));
        assert_eq!(lessor.renew(A, 19_000), Renewal::Expired);
        assert_eq!(lessor.time_to_live(A, 25_000), Some(0));
        lessor.revoked(A);
        assert_eq!(lessor.renew(A, 19_000), Renewal::Unknown);
        assert_eq!(lessor.time_to_live(A, 19_000), None);
    }

    #[test]
    fn promotion_counts_what_remains_and_the_election() {
        let mut lessor = Lessor::default();
        lessor.promote(1_000, 500, [lease(A, 10, 0), lease(B, 3_600, 4)]);
        assert_eq!(lessor.expired(5_499, 10), []);
        assert_eq!(lessor.expired(5_500, 10), [B]);
        assert_eq!(lessor.expired(11_500, 10), [B, A]);
        lessor.demote();
        assert!(!lessor.is_primary());
        assert_eq!(lessor.expired(u64::MAX, 10), []);
    }

    #[test]
    fn promotion_spreads_a_pile_of_leases() {
        let config = LessorConfig { revoke_per_second_max: 100, ..Default::default() };
        let mut lessor = Lessor::new(config);
        lessor.promote(0, 0, (1..=1_000).map(|id| lease(LeaseId(id), 10, 0)));
        for second in 10..23 {
            let expired = lessor.expired(second * 1_000 + 999, usize::MAX);
            for id in &expired {
                lessor.revoked(*id);
            }
            assert!((70..=80).contains(&expired.len()), "{} in second {second}", expired.len());
        }
        assert!(lessor.next_due_ms().is_some_and(|at_ms| at_ms < 24_000));
    }

    #[test]
    fn long_leases_are_checkpointed_and_a_renewal_clears_it() {
        let mut lessor = primary();
        lessor.granted(A, 1_000, 0);
        lessor.granted(B, 300, 0);
        assert_eq!(lessor.due_checkpoints(299_999, 10), []);
        assert_eq!(lessor.due_checkpoints(300_000, 10), [LeaseRemaining { id: 1, ttl: 700 }]);
        assert_eq!(
            lessor.due_checkpoints(900_000, 10),
            [],
            "only once it is applied comes the next"
        );
        lessor.checkpointed(A, 700, 300_500);
        assert_eq!(lessor.due_checkpoints(600_499, 10), []);
        assert_eq!(lessor.due_checkpoints(600_500, 10), [LeaseRemaining { id: 1, ttl: 400 }]);
        assert_eq!(
            lessor.renew(A, 601_000),
            Renewal::Extended { ttl: 1_000, clear_checkpoint: true }
        );
        lessor.checkpointed(A, 0, 601_000);
        assert_eq!(
            lessor.renew(A, 602_000),
            Renewal::Extended { ttl: 1_000, clear_checkpoint: false }
        );
        assert_eq!(lessor.due_checkpoints(901_000, 10), [LeaseRemaining { id: 1, ttl: 701 }]);
    }
}
