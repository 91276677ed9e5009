//! One seed, from the founding to the verdict.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::clients::{Client, PREFIX};
use super::cluster::Cluster;
use super::holders::Holder;
use super::nemesis::Nemesis;
use super::plan::Plan;
use super::recorder::Recorder;
use super::settle::Settle;
use super::watchers::Watcher;
use crate::history::History;
use crate::invariants::{self, Violation};

/// Clients finish the call that they are at within this.
const LAST_CALL: Duration = Duration::from_secs(9);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything that was seen.
    pub history: History,
    /// What was wrong.
    pub violations: Vec<Violation>,
}

impl Outcome {
    /// A digest of the whole history: the same for the same seed.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (_, line) in self.history.lines() {
            hash.update(line);
            hash.update("\n");
        }
        let digest = hash.finalize();
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Runs a seed with its files under `dir`. The caller has seeded all randomness of this thread, and
/// runs nothing else in this process.
pub fn run(plan: Plan, dir: &Path) -> std::io::Result<Outcome> {
    pintle_store::simulation::enter();
    if let Some(broken) = plan.broken {
        pintle_store::simulation::break_deliberately(broken);
    }
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let recorder = runtime.block_on(live(plan, dir));
    // What is left of crashed members ends with the process.
    runtime.shutdown_background();
    let (history, mut violations) = recorder.finish();
    violations.extend(invariants::check(&history));
    Ok(Outcome { history, violations })
}

async fn live(plan: Plan, dir: &Path) -> Arc<Recorder> {
    let duration = Duration::from_millis(plan.duration_ms);
    let cluster = Cluster::found(plan.clone(), dir.to_owned()).await;
    let supervisor = tokio::spawn(Arc::clone(&cluster).supervise());
    let mut watched = Vec::new();
    for number in 0..plan.watchers {
        let watcher = watcher(&cluster, number);
        watched.push(watcher.through());
        tokio::spawn(watcher.run());
    }
    let stop = CancellationToken::new();
    let workers = workers(&cluster, &stop);
    let nemesis = tokio::spawn(Nemesis::new(Arc::clone(&cluster)).run(stop.clone()));
    sleep(duration).await;
    stop.cancel();
    join(nemesis).await;
    for worker in workers {
        drop(tokio::time::timeout(LAST_CALL, join(worker)).await);
    }
    Settle { cluster: &cluster, watched: &watched }.run().await;
    supervisor.abort();
    Arc::clone(&cluster.recorder)
}

/// The first watches everything; the others one key or all, and one of them the locks.
fn watcher(cluster: &Arc<Cluster>, number: usize) -> Watcher {
    let prefix = match number {
        0 => String::new(),
        1 => PREFIX.to_owned(),
        2 => format!("{PREFIX}0"),
        _ => "lock/".to_owned(),
    };
    Watcher::new(Arc::clone(cluster), number, prefix, 1)
}

fn workers(cluster: &Arc<Cluster>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    let clients = (0..cluster.plan.clients)
        .map(|number| tokio::spawn(Client::new(Arc::clone(cluster), number).run(stop.clone())));
    let holders = (50..50 + cluster.plan.holders)
        .map(|number| tokio::spawn(Holder::new(Arc::clone(cluster), number).run(stop.clone())));
    clients.chain(holders).collect()
}

async fn join(task: JoinHandle<()>) {
    if let Err(error) = task.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
