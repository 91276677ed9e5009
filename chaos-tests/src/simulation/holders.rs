//! Clients that take turns at a lock: a key that hangs on a lease which its holder keeps alive.

use std::sync::Arc;
use std::time::Duration;

use pintle_store::Handle;
use pintle_store_api::{LeaseId, Store, pb};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cluster::{Asked, Cluster};
use super::requests;
use crate::history::{Answer, Call, Holding};

const LOCK: &str = "lock/0";
const PATIENCE: Duration = Duration::from_millis(1_500);
const KEEP_ALIVE_EVERY: Duration = Duration::from_millis(300);

pub(super) struct Holder {
    cluster: Arc<Cluster>,
    rng: StdRng,
    number: usize,
    member: usize,
    tries: u64,
}

impl Holder {
    pub(super) fn new(cluster: Arc<Cluster>, number: usize) -> Self {
        let seed = cluster.plan.seed ^ (0x686f_6c64_6572_0000 + number as u64);
        let member = number % cluster.plan.members;
        Self { cluster, rng: StdRng::seed_from_u64(seed), number, member, tries: 0 }
    }

    /// Takes and leaves the lock until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            sleep(Duration::from_millis(self.rng.random_range(20..200))).await;
            if self.rng.random_bool(0.3) {
                self.member = self.rng.random_range(0..self.cluster.places());
            }
            let Some((lease, until)) = self.grant().await else { continue };
            if self.acquire(lease, until).await {
                self.hold(lease, until, &stop).await;
            }
        }
    }

    async fn ask<T, F: Future<Output = T>>(
        &mut self,
        request: impl FnOnce(Arc<Handle>) -> F,
    ) -> Asked<T> {
        let asked = self.cluster.ask(self.member, PATIENCE, request).await;
        if !matches!(asked, Asked::Answered(_)) {
            self.member = self.rng.random_range(0..self.cluster.places());
        }
        asked
    }

    /// A lease, and until when it certainly lasts.
    async fn grant(&mut self) -> Option<(i64, Instant)> {
        let asked_at = Instant::now();
        let ttl = self.rng.random_range(1..=2);
        let grant = async move |store: Arc<Handle>| {
            let request = pb::LeaseGrantRequest { ttl, id: 0 };
            store.lease_grant(request).await
        };
        let Asked::Answered(Ok(granted)) = self.ask(grant).await else { return None };
        Some((granted.id, lasts(asked_at, granted.ttl)))
    }

    async fn acquire(&mut self, lease: i64, until: Instant) -> bool {
        self.tries += 1;
        let value = format!("h{}.{}", self.number, self.tries);
        let call = Call::Swap { key: LOCK.to_owned(), expected: 0, value, lease };
        let invoked = self.cluster.recorder.moment();
        let asked = {
            let call = call.clone();
            self.ask(async move |store: Arc<Handle>| requests::ask(&store, &call).await).await
        };
        let answer = match asked {
            Asked::Answered(answer) => answer,
            Asked::NotSent => Answer::NotApplied("nobody listens".to_owned()),
            Asked::Lost => Answer::Unknown("no answer".to_owned()),
        };
        let acquired = matches!(answer, Answer::Written { .. }) && Instant::now() < until;
        self.cluster.recorder.operation((self.number, self.member), call, invoked, answer);
        acquired
    }

    /// Keeps the lease alive for a while, then lets go of it, or forgets it.
    async fn hold(&mut self, lease: i64, mut until: Instant, stop: &CancellationToken) {
        let from = self.cluster.recorder.moment();
        let enough = Instant::now() + Duration::from_millis(self.rng.random_range(200..4_000));
        loop {
            let next = Instant::now() + KEEP_ALIVE_EVERY;
            if next.min(until) >= enough || stop.is_cancelled() {
                break;
            }
            sleep_until(next.min(until)).await;
            if Instant::now() >= until {
                break;
            }
            if let Some(extended) = self.keep_alive(lease, until).await {
                until = until.max(extended);
            }
        }
        let forget = self.rng.random_bool(0.3);
        if forget {
            sleep_until(until).await;
        }
        let until = self.cluster.recorder.moment();
        let (lock, client) = (LOCK.to_owned(), self.number);
        self.cluster.recorder.holding(Holding { lock, client, lease, from, until });
        if !forget {
            let revoke = async move |store: Arc<Handle>| store.lease_revoke(LeaseId(lease)).await;
            drop(self.ask(revoke).await);
        }
    }

    /// Until when the lease lasts now, if anybody said so in time.
    async fn keep_alive(&mut self, lease: i64, until: Instant) -> Option<Instant> {
        let asked_at = Instant::now();
        let renew = async move |store: Arc<Handle>| store.lease_keep_alive(LeaseId(lease)).await;
        let asked = tokio::select! {
            biased;
            () = sleep_until(until) => return None,
            asked = self.ask(renew) => asked,
        };
        match asked {
            Asked::Answered(Ok(renewed)) if renewed.ttl > 0 => Some(lasts(asked_at, renewed.ttl)),
            Asked::Answered(Ok(_)) => {
                let what = format!("lease {lease:x} of client {} is gone early", self.number);
                self.cluster.recorder.violation("a lease does not end before its time", what);
                None
            }
            Asked::Answered(Err(_)) | Asked::NotSent | Asked::Lost => None,
        }
    }
}

/// A lease lasts for its time from when it was asked for; a millisecond less, since that is how
/// exact the simulated clock is.
fn lasts(asked_at: Instant, ttl: i64) -> Instant {
    let seconds = Duration::from_secs(ttl.unsigned_abs());
    asked_at + seconds - Duration::from_millis(1)
}
