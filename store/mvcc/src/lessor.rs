//! Deadlines of leases, on the leader's clock.
//!
//! Only time-to-live values are replicated; when a lease ends is the current leader's judgement.
//! This structure holds no clock: every method is told the time, in milliseconds of any
//! monotonic clock. A follower keeps none; a new leader calls [`Lessor::promote`].

use pintle_proto::raft::LeaseRemaining;
use pintle_store_api::LeaseId;

use crate::Lease;

/// How fast leases are revoked and checkpointed.
#[derive(Clone, Debug)]
pub struct LessorConfig {
    /// A lease that was reported expired is reported again after this long, unless it was revoked.
    pub retry_ms: u64,
    /// A lease whose remaining time exceeds this is checkpointed this often.
    pub checkpoint_interval_ms: u64,
    /// After a promotion, deadlines are spread so that about this many fall into one second.
    pub revoke_per_second_max: usize,
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
#[derive(Debug, Default)]
pub struct Lessor {}

impl Lessor {
    /// One that is not primary: it knows no deadlines.
    pub fn new(config: LessorConfig) -> Self {
        let _ = config;
        unimplemented!()
    }

    /// Whether this member keeps the deadlines.
    pub fn is_primary(&self) -> bool {
        unimplemented!()
    }

    /// This member leads now: every lease runs from `now_ms` for what remains of it, plus
    /// `extend_ms` (the election took time in which nobody could renew).
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64, leases: impl IntoIterator<Item = Lease>) {
        let _ = (now_ms, extend_ms, leases.into_iter().count());
        unimplemented!()
    }

    /// This member leads no longer: forgets all deadlines.
    pub fn demote(&mut self) {
        unimplemented!()
    }

    /// A grant was applied.
    pub fn granted(&mut self, id: LeaseId, ttl: i64, now_ms: u64) {
        let _ = (id, ttl, now_ms);
        unimplemented!()
    }

    /// A revoke was applied.
    pub fn revoked(&mut self, id: LeaseId) {
        let _ = id;
        unimplemented!()
    }

    /// A checkpoint was applied.
    pub fn checkpointed(&mut self, id: LeaseId, remaining_ttl: i64, now_ms: u64) {
        let _ = (id, remaining_ttl, now_ms);
        unimplemented!()
    }

    /// A keep-alive.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Renewal {
        let _ = (id, now_ms);
        unimplemented!()
    }

    /// Seconds until the deadline, as LeaseTimeToLive reports them; `None` for an unknown lease.
    pub fn time_to_live(&self, id: LeaseId, now_ms: u64) -> Option<i64> {
        let _ = (id, now_ms);
        unimplemented!()
    }

    /// Up to `limit` leases whose deadline has passed, oldest deadline first: propose their revoke.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        let _ = (now_ms, limit);
        unimplemented!()
    }

    /// Up to `limit` remaining times to replicate, so that a new leader does not start afresh.
    pub fn due_checkpoints(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseRemaining> {
        let _ = (now_ms, limit);
        unimplemented!()
    }

    /// When the next of [`Lessor::expired`] and [`Lessor::due_checkpoints`] has something.
    pub fn next_due_ms(&self) -> Option<u64> {
        unimplemented!()
    }
}
