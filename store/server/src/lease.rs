//! Leases: the leader's clock decides when one ends, the log decides what follows.
//!
//! Grants, revokes and checkpoints are replicated; deadlines are only in the leader's
//! [`Lessor`]. The apply thread tells it what was applied, the driver task promotes and demotes it
//! with leadership, revokes what has expired (many at a time, for this term only) and replicates
//! remaining times, so that a new leader does not start them afresh.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_mvcc::{Lessor, LessorConfig, Outcome, Reader, Renewal};
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{Command, LeaseCheckpoint, LeaseRemaining, LeaseRevoke};
use pintle_store_api::{LeaseId, ReadError, WriteError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::errors;
use crate::host::blocking;
use crate::leadership::Leadership;
use crate::proposer::Proposer;
use crate::read_index::ReadIndex;
#[cfg(feature = "simulation")]
use crate::simulation::{Broken, is_broken};

/// Leases revoked or checkpointed by one command.
const BATCH_MAX: usize = 500;
/// The driver looks at least this often, whatever the lessor says.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// How often an expired lease is looked at again until its revoke is applied.
const REVOKE_POLL: Duration = Duration::from_millis(50);

/// The deadlines of this member, and the clock they are on.
#[derive(Debug)]
pub(crate) struct Leases {
    lessor: Mutex<Lessor>,
    epoch: Instant,
    changed: Notify,
}

impl Leases {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            lessor: Mutex::new(Lessor::new(LessorConfig::default())),
            epoch: Instant::now(),
            changed: Notify::new(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Called by apply, after the commands were written.
    pub(crate) fn applied(&self, commands: &[Command], outcomes: &[Outcome]) {
        let mut lessor = None;
        for (command, outcome) in commands.iter().zip(outcomes) {
            let (Some(kind), Ok(_)) = (&command.kind, outcome) else { continue };
            if !matches!(
                kind,
                Kind::LeaseGrant(_) | Kind::LeaseRevoke(_) | Kind::LeaseCheckpoint(_)
            ) {
                continue;
            }
            let lessor = lessor.get_or_insert_with(|| self.lessor.lock());
            self.note(lessor, kind);
        }
        if lessor.is_some() {
            self.changed.notify_one();
        }
    }

    fn note(&self, lessor: &mut Lessor, kind: &Kind) {
        let now = self.now_ms();
        match kind {
            Kind::LeaseGrant(grant) => lessor.granted(LeaseId(grant.id), grant.ttl, now),
            Kind::LeaseRevoke(revoke) => {
                revoke.ids.iter().for_each(|id| lessor.revoked(LeaseId(*id)));
            }
            Kind::LeaseCheckpoint(checkpoint) => {
                for one in &checkpoint.remaining {
                    lessor.checkpointed(LeaseId(one.id), one.ttl, now);
                }
            }
            _ => {}
        }
    }

    /// The state was replaced by a leader's snapshot: this member does not lead.
    pub(crate) fn reset(&self) {
        self.lessor.lock().demote();
    }

    fn is_primary(&self) -> bool {
        self.lessor.lock().is_primary()
    }
}

/// Renews leases on the leader and drives their expiry.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) leases: Arc<Leases>,
    pub(crate) reader: Reader,
    pub(crate) proposer: Proposer,
    pub(crate) read_index: ReadIndex,
    pub(crate) leadership: Leadership,
    /// Added to every deadline at promotion: the election took time in which nobody could renew.
    pub(crate) extend: Duration,
    pub(crate) timeout: Duration,
}

impl Driver {
    /// Extends a lease on the leader: the seconds it now has, 0 when there is no such lease.
    /// That this member still leads is confirmed first, or a deposed leader would extend leases
    /// that its successor lets expire.
    pub(crate) async fn renew(&self, id: LeaseId) -> Result<i64, WriteError> {
        #[cfg(feature = "simulation")]
        if self.still_believes() {
            return Ok(self.renew_unasked(id));
        }
        let deadline = Instant::now() + self.timeout;
        let read = self.read_index.wait().await;
        read.map_err(|error| WriteError::NotApplied(error.to_string()))?;
        loop {
            if !self.leadership.is_leader() {
                return Err(WriteError::NotApplied(errors::NOT_LEADER.to_owned()));
            }
            let renewal = {
                let mut lessor = self.leases.lessor.lock();
                lessor.is_primary().then(|| lessor.renew(id, self.leases.now_ms()))
            };
            match renewal {
                Some(Renewal::Extended { ttl, clear_checkpoint }) => {
                    if clear_checkpoint {
                        self.checkpoint(vec![LeaseRemaining { id: id.0, ttl: 0 }]).await?;
                    }
                    return Ok(ttl);
                }
                Some(Renewal::Unknown) => return Ok(0),
                // Revoked in a moment; or a new leader that has not looked at its leases yet.
                Some(Renewal::Expired) | None if Instant::now() < deadline => {
                    tokio::time::sleep(REVOKE_POLL).await;
                }
                Some(Renewal::Expired) | None => {
                    return Err(WriteError::NotApplied(errors::TIMEOUT.to_owned()));
                }
            }
        }
    }

    /// Whether this member has led once and, deliberately wrong, never lets go of its deadlines.
    #[cfg(feature = "simulation")]
    pub(crate) fn still_believes(&self) -> bool {
        is_broken(Broken::DoubleLease) && self.leases.is_primary()
    }

    /// Extends a lease whoever leads.
    #[cfg(feature = "simulation")]
    fn renew_unasked(&self, id: LeaseId) -> i64 {
        match self.leases.lessor.lock().renew(id, self.leases.now_ms()) {
            Renewal::Extended { ttl, .. } => ttl,
            Renewal::Expired | Renewal::Unknown => 0,
        }
    }

    /// Seconds left of a lease on the leader; `None` for an unknown lease.
    pub(crate) async fn time_to_live(&self, id: LeaseId) -> Result<Option<i64>, ReadError> {
        self.read_index.wait().await?;
        let deadline = Instant::now() + self.timeout;
        loop {
            if !self.leadership.is_leader() {
                return Err(ReadError::Unavailable(errors::NOT_LEADER.to_owned()));
            }
            {
                let lessor = self.leases.lessor.lock();
                if lessor.is_primary() {
                    return Ok(lessor.time_to_live(id, self.leases.now_ms()));
                }
            }
            if Instant::now() >= deadline {
                return Err(ReadError::Unavailable(errors::TIMEOUT.to_owned()));
            }
            tokio::time::sleep(REVOKE_POLL).await;
        }
    }

    async fn checkpoint(&self, remaining: Vec<LeaseRemaining>) -> Result<(), WriteError> {
        let kind = Kind::LeaseCheckpoint(LeaseCheckpoint { remaining });
        self.proposer.propose(Command { kind: Some(kind), caller: None }).await.map(drop)
    }

    async fn revoke(&self, expired: Vec<LeaseId>, term: u64) {
        let ids = expired.into_iter().map(|id| id.0).collect();
        let kind = Kind::LeaseRevoke(LeaseRevoke { ids, expired_in_term: term });
        if let Err(error) = self.proposer.propose(Command { kind: Some(kind), caller: None }).await
        {
            // The lessor reports them again.
            tracing::debug!(%error, "expired leases were not revoked yet");
        }
    }

    /// Runs while the member does.
    pub(crate) async fn run(self) {
        let mut leadership = self.leadership.clone();
        loop {
            if leadership.is_leader() {
                if !self.leases.is_primary() {
                    self.promote().await;
                }
                self.work(leadership.term()).await;
            } else if self.leases.is_primary() {
                self.demote();
            }
            let wait = self.until_due(leadership.is_leader());
            tokio::select! {
                () = leadership.changed() => {}
                () = self.leases.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn demote(&self) {
        #[cfg(feature = "simulation")]
        if self.still_believes() {
            return;
        }
        self.leases.lessor.lock().demote();
    }

    fn until_due(&self, leader: bool) -> Duration {
        let due = leader.then(|| self.leases.lessor.lock().next_due_ms()).flatten();
        let wait = due.map_or(LOOK_MAX, |due| {
            Duration::from_millis(due.saturating_sub(self.leases.now_ms()).max(10))
        });
        wait.min(LOOK_MAX)
    }

    /// Takes over once everything that earlier leaders committed is applied here.
    async fn promote(&self) {
        if self.read_index.wait().await.is_err() || !self.leadership.is_leader() {
            return;
        }
        // Most of it before the lock.
        let reader = self.reader.clone();
        drop(blocking(move || reader.settle()).await);
        let extend = u64::try_from(self.extend.as_millis()).unwrap_or(u64::MAX);
        // Under the lock, which apply also takes: a grant is either read here or noted after.
        let mut lessor = self.leases.lessor.lock();
        match self.reader.leases() {
            Ok(leases) => lessor.promote(self.leases.now_ms(), extend, leases),
            Err(fault) => tracing::error!(%fault, "leases cannot be read; they do not expire"),
        }
    }

    async fn work(&self, term: u64) {
        let (expired, due) = {
            let mut lessor = self.leases.lessor.lock();
            if !lessor.is_primary() {
                return;
            }
            let now = self.leases.now_ms();
            (lessor.expired(now, BATCH_MAX), lessor.due_checkpoints(now, BATCH_MAX))
        };
        if !expired.is_empty() {
            self.revoke(expired, term).await;
        }
        if !due.is_empty()
            && let Err(error) = self.checkpoint(due).await
        {
            tracing::debug!(%error, "remaining lease times were not replicated yet");
        }
    }
}
