//! The probes of one container instance: a task for each, counting successes and failures against
//! the thresholds and telling the pod's worker when the verdict changes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::ProbeKind;
use super::check::{self, Outcome, Target};
use crate::runtime::Runtime;

/// A verdict that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The container instance.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// Whether it succeeds.
    pub healthy: bool,
    /// Whether it changed the verdict, or only failed once more.
    pub changed: bool,
    /// Why it failed.
    pub message: String,
}

/// Counts in a row. Pure.
#[derive(Debug, Clone)]
pub struct Counter {
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    run: i32,
    verdict: Option<bool>,
}

impl Counter {
    /// With the probe's thresholds; `verdict` is what is believed so far.
    pub fn new(probe: &Probe, verdict: Option<bool>) -> Self {
        Self {
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            run: 0,
            verdict,
        }
    }

    /// Enters an outcome; `Some` when the verdict changes.
    pub fn enter(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run + 1 } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }
}

/// What a probing task needs.
#[derive(Clone)]
pub struct Prober {
    /// Runs commands.
    pub runtime: Arc<dyn Runtime>,
    /// The container.
    pub container: Container,
    /// Where to.
    pub target: Target,
    /// When the instance began.
    pub started_at: Timestamp,
    /// The worker.
    pub verdicts: mpsc::Sender<Verdict>,
}

impl Prober {
    /// Probes until `stop`; startup and liveness probes end with their first verdict of failure, the
    /// startup probe also with success.
    pub async fn run(
        self,
        kind: ProbeKind,
        probe: Probe,
        believed: Option<bool>,
        stop: CancellationToken,
    ) {
        stop.run_until_cancelled(Box::pin(self.probe_forever(kind, probe, believed))).await;
    }

    async fn probe_forever(self, kind: ProbeKind, probe: Probe, believed: Option<bool>) {
        self.wait_initial_delay(&probe).await;
        let period = u64::from(probe.period_seconds.unwrap_or(10).max(1).unsigned_abs());
        let mut ticks = interval(Duration::from_secs(period));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counter = Counter::new(&probe, believed);
        loop {
            ticks.tick().await;
            let outcome = check::run(&*self.runtime, &self.container, &probe, &self.target).await;
            let changed = counter.enter(outcome == Outcome::Success);
            let message = match outcome {
                Outcome::Success => String::new(),
                Outcome::Failure(message) => message,
            };
            if changed.is_none() && message.is_empty() {
                continue;
            }
            let healthy = changed.unwrap_or(message.is_empty());
            let verdict = Verdict {
                container_id: self.target.container_id.clone(),
                container: self.container.name.clone(),
                kind,
                healthy,
                changed: changed.is_some(),
                message,
            };
            let over = changed.is_some()
                && match kind {
                    ProbeKind::Startup => true,
                    ProbeKind::Liveness => !healthy,
                    ProbeKind::Readiness => false,
                };
            if self.verdicts.send(verdict).await.is_err() || over {
                return;
            }
        }
    }

    async fn wait_initial_delay(&self, probe: &Probe) {
        let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0));
        let passed = Timestamp::now().duration_since(self.started_at).as_millis();
        let left = i128::from(delay) * 1000 - passed;
        if let Ok(left) = u64::try_from(left) {
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(success: i32, failure: i32, verdict: Option<bool>) -> Counter {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        Counter::new(&probe, verdict)
    }

    #[test]
    fn verdicts_change_at_the_thresholds_only() {
        let mut counter = counter(2, 3, Some(false));
        let outcomes = [true, true, true, false, false, true, false, false, false, false];
        let verdicts: Vec<_> = outcomes.iter().map(|o| counter.enter(*o)).collect();
        let mut expected = vec![None; 10];
        expected[1] = Some(true);
        expected[8] = Some(false);
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn what_is_believed_is_not_told_again() {
        assert_eq!(counter(1, 3, Some(true)).enter(true), None);
        assert_eq!(counter(1, 1, None).enter(true), Some(true));
    }
}
