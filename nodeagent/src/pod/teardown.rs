//! The end of a pod: containers first, sidecars after them, then the sandbox, then what was left on
//! the node, then the pod itself.

use std::time::Duration;

use pintle_proto::cri::ContainerState;
use tokio::time::Instant;

use super::sync::Error;
use super::worker::{Next, Phase, Worker};
use super::{ContainerKind, PodExt, sandbox_config};
use crate::runtime;
use crate::{cgroup, volume};

/// How soon it is looked again whether containers have stopped; the runtime wakes us before.
const PATIENCE: Duration = Duration::from_secs(1);

impl Worker {
    /// One step of ending a pod.
    pub(super) async fn tear_down(&mut self) -> Result<Next, Error> {
        self.read_runtime().await?;
        self.update_probes();
        self.publish();
        let grace = self.remaining_grace();
        let message = match &self.failure {
            Some(failure) => failure.message.clone(),
            None => "Stopping container".to_owned(),
        };
        if !self.stop_everything(grace, &message).await? {
            return Ok(Next::After(PATIENCE));
        }
        self.read_runtime().await?;
        self.phase = Phase::Terminated;
        self.waiting.clear();
        Ok(Next::Now)
    }

    /// The grace counts from the beginning of the end, and a second deletion may shorten it.
    fn remaining_grace(&mut self) -> Duration {
        let seconds = if self.pod.is_terminating() || self.failure.is_none() {
            self.pod.grace_seconds()
        } else {
            self.pod.pod_spec().termination_grace_period_seconds.unwrap_or(30)
        };
        let grace = Duration::from_secs(seconds.max(0).unsigned_abs());
        let begun_until = Instant::now() + grace;
        let deadline = self.deadline.map_or(begun_until, |deadline| deadline.min(begun_until));
        self.deadline = Some(deadline);
        deadline.saturating_duration_since(Instant::now())
    }

    /// Stops containers, and sandboxes after them. Whether nothing is left alive.
    pub(super) async fn stop_everything(
        &mut self,
        grace: Duration,
        message: &str,
    ) -> Result<bool, Error> {
        let kinds: Vec<_> =
            self.pod.all_containers().into_iter().map(|(kind, c)| (c.name, kind)).collect();
        let kind_of = |name: &str| kinds.iter().find(|(n, _)| n == name).map(|(_, kind)| *kind);
        let alive: Vec<(String, String)> = self
            .runtime
            .containers
            .iter()
            .filter(|r| {
                matches!(
                    r.state(),
                    ContainerState::ContainerRunning | ContainerState::ContainerUnknown
                )
            })
            .map(|r| (r.status.id.clone(), r.name.clone()))
            .collect();
        let (sidecars, others): (Vec<_>, Vec<_>) =
            alive.into_iter().partition(|(_, name)| kind_of(name) == Some(ContainerKind::Sidecar));
        // Sidecars go when they serve nobody any more, the last declared one first.
        let now = if others.is_empty() {
            let last =
                kinds.iter().rev().find_map(|(name, _)| sidecars.iter().find(|(_, n)| n == name));
            last.cloned().into_iter().collect()
        } else {
            others
        };
        for (id, name) in &now {
            let message = match message {
                "Stopping container" => format!("Stopping container {name}"),
                other => other.to_owned(),
            };
            self.stop_one(id, name, grace, message);
        }
        if !now.is_empty() {
            return Ok(false);
        }
        let ready: Vec<String> =
            self.runtime.sandboxes.iter().filter(|s| s.ready).map(|s| s.id.clone()).collect();
        for id in ready {
            self.context.runtime.stop_sandbox(&id).await?;
        }
        Ok(true)
    }

    /// What a stopped pod leaves behind: at once its mounts, with the pod itself the rest.
    pub(super) async fn clean_up(&mut self) -> Result<Next, Error> {
        let leaves = self.desired.borrow().removed || self.pod.is_terminating();
        if !self.swept {
            self.publish();
            if self.context.runtime.is_real() {
                volume::remove_all(self.pod.uid(), &self.context.paths)?;
                cgroup::remove(&self.pod);
            }
            self.volumes = None;
            self.swept = true;
        }
        if !leaves {
            // A pod that ran to its end stays, with its logs.
            return Ok(Next::After(Duration::from_secs(60)));
        }
        if !self.cleaned {
            self.remove_remains().await?;
            self.cleaned = true;
        }
        if self.desired.borrow().removed || self.writer.is_gone() {
            return Ok(Next::Now);
        }
        if self.pod.is_terminating() {
            self.writer.delete();
        }
        Ok(Next::After(Duration::from_secs(5)))
    }

    async fn remove_remains(&mut self) -> Result<(), Error> {
        remove_from_runtime(&*self.context.runtime, &self.runtime).await?;
        let logs = sandbox_config::log_directory(&self.context.paths, &self.pod);
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

async fn remove_from_runtime(
    runtime: &dyn runtime::Runtime,
    known: &super::runtime_status::PodRuntime,
) -> runtime::Result<()> {
    for record in &known.containers {
        runtime.remove_container(&record.status.id).await?;
    }
    for sandbox in &known.sandboxes {
        runtime.stop_sandbox(&sandbox.id).await?;
        runtime.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

/// Ends what runs on the node for a pod that nobody wants.
pub async fn remove_orphan(
    runtime: &dyn runtime::Runtime,
    uid: &str,
    grace: Duration,
) -> runtime::Result<()> {
    let known = super::runtime_status::PodRuntime::read(runtime, uid).await?;
    let stops = known.running().map(|record| runtime.stop_container(&record.status.id, grace));
    for result in futures::future::join_all(stops).await {
        result?;
    }
    remove_from_runtime(runtime, &known).await
}
