//! The loop around [`decide`]: reads and writes the Lease, starts the work when it is ours, stops it when it is not.

use std::future::Future;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::decide::{Decision, Observation, Record, decide};
use crate::{LEASE_DURATION, POLL_PERIOD, RENEW_DEADLINE, RENEW_PERIOD, REQUEST_TIMEOUT};

/// Where the leases of the control plane live.
const NAMESPACE: &str = "kube-system";

/// Who stands for which lease.
pub struct Config {
    /// The connection to the apiserver.
    pub client: Client,
    /// Name of the Lease in `kube-system`, such as `kube-scheduler`.
    pub lease_name: String,
    /// What goes into `holderIdentity`; unique among the candidates.
    pub identity: String,
}

/// Stands for the lease until `shutdown`; runs `lead` whenever it is held.
///
/// The token given to `lead` is cancelled when the leadership is lost or `shutdown` is; its future is awaited before
/// anything else happens, so at most one instance runs here at any time. When `lead` returns by itself the lease is
/// given up and stood for again. On `shutdown` the lease is renewed until `lead` has returned, and released then.
pub async fn run_while_leading<F, Fut>(config: Config, shutdown: CancellationToken, lead: F)
where
    F: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()> + Send,
{
    let mut elector = Elector::new(config);
    while let Some(sent) = elector.campaign(&shutdown).await {
        info!(lease = elector.name, identity = elector.identity, "leading");
        let term = shutdown.child_token();
        let finished = CancellationToken::new();
        // A task of its own: work that computes for long must not hold back the renewals.
        // Aborted if we are dropped: a lease must not outlive the work that it is held for.
        let keeper = tokio::spawn(elector.keep(sent, term.clone(), finished.clone()));
        let keeper = AbortOnDropHandle::new(keeper);
        lead(term.clone()).await;
        let by_itself = !term.is_cancelled();
        finished.cancel();
        elector = match keeper.await {
            Ok(elector) => elector,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        info!(lease = elector.name, identity = elector.identity, "no longer leading");
        if by_itself {
            // Others get their chance first.
            let _ = timeout(LEASE_DURATION, shutdown.cancelled()).await;
        }
    }
}

struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    origin: Instant,
    observed: Option<Observation>,
    /// The Lease as last read or written; its resourceVersion guards the next write.
    lease: Option<Lease>,
}

enum Standing {
    /// The lease is ours, by a write sent at this time.
    Holder(Instant),
    Follower,
}

impl Elector {
    fn new(config: Config) -> Self {
        Self {
            api: Api::namespaced(config.client, NAMESPACE),
            name: config.lease_name,
            identity: config.identity,
            origin: Instant::now(),
            observed: None,
            lease: None,
        }
    }

    /// Waits until the lease is ours; `None` when `shutdown` comes first.
    async fn campaign(&mut self, shutdown: &CancellationToken) -> Option<Instant> {
        while !shutdown.is_cancelled() {
            match timeout(REQUEST_TIMEOUT, self.acquire_or_renew()).await {
                Ok(Ok(Standing::Holder(sent))) => return Some(sent),
                Ok(Ok(Standing::Follower)) => {}
                Ok(Err(error)) => debug!(lease = self.name, %error, "cannot stand for the lease"),
                Err(_) => debug!(lease = self.name, "standing for the lease timed out"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(POLL_PERIOD) => {}
            }
        }
        None
    }

    /// Renews until the leadership is lost (then cancels `term`) or the work has `finished` (then releases the lease).
    async fn keep(
        mut self,
        mut sent: Instant,
        term: CancellationToken,
        finished: CancellationToken,
    ) -> Self {
        let mut next = sent + RENEW_PERIOD;
        loop {
            tokio::select! {
                () = finished.cancelled() => {
                    self.release().await;
                    return self;
                }
                () = tokio::time::sleep_until(next) => {}
            }
            let deadline = sent + RENEW_DEADLINE;
            let attempt = deadline.min(Instant::now() + REQUEST_TIMEOUT);
            match timeout_at(attempt, self.acquire_or_renew()).await {
                Ok(Ok(Standing::Holder(at))) => {
                    sent = at;
                    next = at + RENEW_PERIOD;
                    continue;
                }
                Ok(Ok(Standing::Follower)) => {
                    warn!(lease = self.name, "the lease was taken over");
                    break;
                }
                Ok(Err(error)) => warn!(lease = self.name, %error, "cannot renew the lease"),
                Err(_) => warn!(lease = self.name, "renewing the lease timed out"),
            }
            if Instant::now() >= deadline {
                break;
            }
            next = deadline.min(Instant::now() + POLL_PERIOD);
        }
        term.cancel();
        finished.cancelled().await;
        self
    }

    /// One step of the protocol. A conflict means that the lease changed meanwhile: the next step looks again.
    async fn acquire_or_renew(&mut self) -> Result<Standing, kube::Error> {
        let held = self.observed.as_ref().is_some_and(|o| o.record().holder == self.identity);
        if !(held && self.lease.is_some()) {
            self.read().await?;
        }
        let mut written = self.write().await;
        if written.as_ref().is_err_and(is_conflict) {
            self.read().await?;
            written = self.write().await;
        }
        match written {
            Err(error) if is_conflict(&error) => Ok(Standing::Follower),
            Err(error) => {
                self.lease = None;
                Err(error)
            }
            Ok(standing) => Ok(standing),
        }
    }

    async fn read(&mut self) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        self.observe(lease);
        Ok(())
    }

    fn observe(&mut self, lease: Option<Lease>) {
        let now = self.origin.elapsed();
        self.observed = lease.as_ref().map(|lease| {
            let record = lease.spec.as_ref().map(Record::from_spec);
            let record = record.unwrap_or_else(|| Record::from_spec(&Default::default()));
            Observation::update(self.observed.take(), record, now)
        });
        self.lease = lease;
    }

    /// Does what [`decide`] says about the lease as last seen.
    async fn write(&mut self) -> Result<Standing, kube::Error> {
        let sent = Instant::now();
        let wall = Timestamp::now();
        match decide(&self.identity, self.observed.as_ref(), self.origin.elapsed()) {
            Decision::Wait(_) => return Ok(Standing::Follower),
            Decision::Create => {
                let lease = self.created(wall);
                let lease = self.api.create(&PostParams::default(), &lease).await?;
                self.observe(Some(lease));
            }
            Decision::Acquire | Decision::Renew => {
                let (Some(lease), Some(observed)) = (&self.lease, &self.observed) else {
                    return Ok(Standing::Follower);
                };
                let record = observed.record().held_by(&self.identity, LEASE_DURATION, wall);
                self.replace(lease.clone(), &record).await?;
            }
        }
        Ok(Standing::Holder(sent))
    }

    fn created(&self, wall: Timestamp) -> Lease {
        let mut lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                ..Default::default()
            },
            spec: None,
        };
        let record = Record::first(&self.identity, LEASE_DURATION, wall);
        record.write_to(lease.spec.get_or_insert_default());
        lease
    }

    async fn replace(&mut self, mut lease: Lease, record: &Record) -> Result<(), kube::Error> {
        record.write_to(lease.spec.get_or_insert_default());
        let lease = self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        self.observe(Some(lease));
        Ok(())
    }

    /// Clears the holder, so that a successor need not wait. Best effort: without it the lease just runs out.
    async fn release(&mut self) {
        let (Some(lease), Some(observed)) = (self.lease.clone(), self.observed.as_ref()) else {
            return;
        };
        if observed.record().holder != self.identity {
            return;
        }
        let record = observed.record().released(Timestamp::now());
        match timeout(REQUEST_TIMEOUT, self.replace(lease, &record)).await {
            Ok(Ok(())) => debug!(lease = self.name, "lease released"),
            Ok(Err(error)) => warn!(lease = self.name, %error, "cannot release the lease"),
            Err(_) => warn!(lease = self.name, "releasing the lease timed out"),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
