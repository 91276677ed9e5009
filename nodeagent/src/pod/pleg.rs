//! The pod lifecycle event generator: looks at the runtime whenever it may have changed, and tells the
//! manager for which pods it has.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::{self, Runtime, pod_uid};

/// How long the runtime may be silent before the node is not ready; upstream's threshold.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// What runs on the node, as one number for each pod uid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(HashMap<String, u64>);

impl Snapshot {
    /// Asks the runtime.
    pub async fn take(runtime: &dyn Runtime) -> runtime::Result<Self> {
        let mut states: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        for sandbox in runtime.list_sandboxes(None).await? {
            if let Some(uid) = pod_uid(&sandbox.labels) {
                states.entry(uid.to_owned()).or_default().push((sandbox.id, sandbox.state));
            }
        }
        for container in runtime.list_containers(None).await? {
            if let Some(uid) = pod_uid(&container.labels) {
                states.entry(uid.to_owned()).or_default().push((container.id, container.state));
            }
        }
        Ok(Self(states.into_iter().map(|(uid, list)| (uid, fingerprint(list))).collect()))
    }

    /// Pods whose state differs between two snapshots.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let new = self.0.iter().filter(|(uid, state)| before.0.get(*uid) != Some(*state));
        let gone = before.0.iter().filter(|(uid, _)| !self.0.contains_key(*uid));
        new.chain(gone).map(|(uid, _)| uid.as_str())
    }

    /// All pods that the runtime knows.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn fingerprint(mut states: Vec<(String, i32)>) -> u64 {
    states.sort_unstable();
    let mut hasher = DefaultHasher::new();
    states.hash(&mut hasher);
    hasher.finish()
}

/// The newest snapshot, and when the runtime last answered.
#[derive(Debug, Clone)]
pub struct Pleg {
    /// Changes with every difference.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    answered: watch::Receiver<Instant>,
}

impl Pleg {
    /// Starts looking.
    pub fn start(runtime: Arc<dyn Runtime>, shutdown: CancellationToken) -> Self {
        let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot::default()));
        let (answers, answered) = watch::channel(Instant::now());
        tokio::spawn(async move {
            shutdown.run_until_cancelled(relist(runtime, snapshots, answers)).await;
        });
        Self { snapshot, answered }
    }

    /// `Some(message)` when the runtime has not answered for too long.
    pub fn problem(&self) -> Option<String> {
        let silence = self.answered.borrow().elapsed();
        (silence > SILENCE_MAX).then(|| {
            format!("PLEG is not healthy: pleg was last seen active {} s ago", silence.as_secs())
        })
    }
}

async fn relist(
    runtime: Arc<dyn Runtime>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    answers: watch::Sender<Instant>,
) {
    loop {
        match Snapshot::take(&*runtime).await {
            Ok(snapshot) => {
                answers.send_replace(Instant::now());
                snapshots.send_if_modified(|current| {
                    let changed = **current != snapshot;
                    if changed {
                        *current = Arc::new(snapshot);
                    }
                    changed
                });
            }
            Err(error) => tracing::debug!(%error, "the runtime cannot be listed"),
        }
        runtime.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_new_changed_and_gone_pods() {
        let snapshot = |pairs: &[(&str, u64)]| {
            Snapshot(pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect())
        };
        let before = snapshot(&[("same", 1), ("changed", 1), ("gone", 1)]);
        let after = snapshot(&[("same", 1), ("changed", 2), ("new", 1)]);
        let mut changed: Vec<_> = after.changed_since(&before).collect();
        changed.sort_unstable();
        assert_eq!(changed, ["changed", "gone", "new"]);
    }
}
