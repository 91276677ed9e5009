//! Eviction: when memory or disk runs out, images nobody uses go first, then the pod that uses most
//! beyond its requests, of those with the lowest priority.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::node::info;
use crate::node::registration::Pressure;
use crate::pod::PodExt;
use crate::pod::manager::Eviction;
use crate::pod::status::Failure;
use crate::pod::table::PodTable;
use crate::resources;
use crate::stats::summary;

/// How often it is measured; upstream's interval.
const PERIOD: Duration = Duration::from_secs(10);
/// `memory.available`
const MEMORY_MIN: u64 = 100 << 20;
/// `nodefs.available`, in percent.
const DISK_PERCENT_MIN: u64 = 10;
/// `nodefs.inodesFree`, in percent.
const INODES_PERCENT_MIN: u64 = 5;
/// Pressure stays for this long after the last sign of it.
const PRESSURE_LASTS: Duration = Duration::from_secs(300);

/// What is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signals {
    memory_available: u64,
    disk: Option<(u64, u64)>,
    inodes: Option<(u64, u64)>,
}

impl Signals {
    fn read(context: &NodeContext) -> Self {
        let fs = info::filesystem(context.paths.data_dir());
        Self {
            memory_available: info::meminfo("MemAvailable").unwrap_or(u64::MAX),
            disk: fs.map(|(free, total, _, _)| (free, total)),
            inodes: fs.map(|(_, _, free, total)| (free, total)).filter(|(_, total)| *total > 0),
        }
    }

    fn pressure(&self) -> Pressure {
        let below = |pair: Option<(u64, u64)>, percent: u64| {
            pair.is_some_and(|(free, total)| {
                free.saturating_mul(100) < total.saturating_mul(percent)
            })
        };
        Pressure {
            memory: self.memory_available < MEMORY_MIN,
            disk: below(self.disk, DISK_PERCENT_MIN) || below(self.inodes, INODES_PERCENT_MIN),
            pids: false,
        }
    }
}

/// A pod that could go.
#[derive(Debug, Clone)]
struct Candidate {
    pod: Arc<Pod>,
    usage: u64,
    request: u64,
}

/// The order in which pods go: beyond their request first, then by priority, then by how far beyond.
fn choose(mut candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.sort_by_key(|candidate| {
        let priority = candidate.pod.pod_spec().priority.unwrap_or(0);
        let over = i128::from(candidate.usage) - i128::from(candidate.request);
        (over <= 0, priority, -over)
    });
    candidates.into_iter().next()
}

/// Measures and evicts until shutdown.
pub async fn run(
    context: Arc<NodeContext>,
    pods: PodTable,
    pressure: watch::Sender<Pressure>,
    evictions: mpsc::Sender<Eviction>,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_sign = [None; 2];
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let signals = Signals::read(&context);
        let now = signals.pressure();
        let instant = tokio::time::Instant::now();
        for (sign, short) in last_sign.iter_mut().zip([now.memory, now.disk]) {
            if short {
                *sign = Some(instant);
            }
        }
        let lasts = |sign: Option<tokio::time::Instant>| {
            sign.is_some_and(|at| at.elapsed() < PRESSURE_LASTS)
        };
        let shown =
            Pressure { memory: lasts(last_sign[0]), disk: lasts(last_sign[1]), pids: false };
        pressure.send_if_modified(|current| std::mem::replace(current, shown) != shown);
        if now.disk {
            let freed = context.images.collect_garbage(u64::MAX).await;
            tracing::warn!(freed, "disk is short, unused images were removed");
        }
        if (now.memory || (now.disk && Signals::read(&context).pressure().disk))
            && let Some(eviction) = victim(&context, &pods, now).await
            && evictions.send(eviction).await.is_err()
        {
            return;
        }
    }
}

async fn victim(context: &NodeContext, pods: &PodTable, pressure: Pressure) -> Option<Eviction> {
    let alive: Vec<_> =
        pods.all().into_iter().filter(|pod| !pod.is_finished() && !pod.is_terminating()).collect();
    let measured = summary::measure(&*context.runtime, &alive).await;
    let resource = if pressure.memory { "memory" } else { "ephemeral-storage" };
    let candidates = measured
        .into_iter()
        .filter(|m| m.pod.pod_spec().priority.unwrap_or(0) < 2_000_000_000)
        .map(|m| Candidate {
            usage: match pressure.memory {
                true => m.usage.map_or(0, |usage| usage.working_set),
                false => m.containers.iter().filter_map(|c| c.rootfs).sum(),
            },
            request: request_of(&m.pod, resource),
            pod: m.pod,
        })
        .collect();
    let chosen = choose(candidates)?;
    let message = format!("The node was low on resource: {resource}. ");
    context.events.warning(&chosen.pod, None, "Evicted", message.clone());
    Some(Eviction {
        uid: chosen.pod.uid().to_owned(),
        failure: Failure { reason: "Evicted".to_owned(), message },
    })
}

fn request_of(pod: &Pod, resource: &str) -> u64 {
    let containers = pod.pod_spec().containers.iter();
    let requests = containers.filter_map(|c| resources::request(c.resources.as_ref(), resource));
    requests.map(|q| u64::try_from(resources::value(&q)).unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn candidate(name: &str, priority: i32, usage: u64, request: u64) -> Candidate {
        let pod = serde_json::from_value(json!({ "metadata": { "name": name },
            "spec": { "priority": priority, "containers": [] } }))
        .unwrap();
        Candidate { pod: Arc::new(pod), usage, request }
    }

    #[test]
    fn the_least_important_greedy_pod_goes_first() {
        let chosen = choose(vec![
            candidate("modest", -5, 10, 20),
            candidate("important", 9, 90, 0),
            candidate("greedy", 0, 80, 10),
            candidate("greedier", 0, 90, 10),
        ]);
        assert_eq!(chosen.unwrap().pod.name(), "greedier");
        assert!(choose(Vec::new()).is_none());
    }

    #[test]
    fn thresholds_are_upstreams() {
        let signals =
            |memory, disk| Signals { memory_available: memory, disk: Some(disk), inodes: None };
        assert_eq!(signals(1 << 30, (50, 100)).pressure(), Pressure::default());
        assert!(signals(99 << 20, (50, 100)).pressure().memory);
        assert!(signals(1 << 30, (9, 100)).pressure().disk);
    }
}
