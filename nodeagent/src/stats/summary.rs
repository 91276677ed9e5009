//! `/stats/summary`: node and pods as JSON, in upstream's shape.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cgroup_usage::{self, Usage};
use crate::cgroup;
use crate::node::info;
use crate::pod::{PodExt, from_nanos};
use crate::runtime::{LABEL_CONTAINER_NAME, LABEL_POD_UID, Runtime};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::sync::Arc;

/// One container's usage.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// When it started.
    pub started_at: Timestamp,
    /// From its group.
    pub usage: Usage,
    /// Bytes of its writable layer, if known.
    pub rootfs: Option<u64>,
}

/// One pod's usage.
#[derive(Debug, Clone)]
pub struct PodUsage {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Of the whole pod.
    pub usage: Option<Usage>,
    /// Its running containers.
    pub containers: Vec<ContainerUsage>,
    /// Bytes received and sent.
    pub network: Option<(u64, u64)>,
}

/// Measures all pods that run.
pub async fn measure(runtime: &dyn Runtime, pods: &[Arc<Pod>]) -> Vec<PodUsage> {
    let version = cgroup::version();
    let containers = runtime.list_containers(None).await.unwrap_or_default();
    let layers: HashMap<String, u64> = runtime
        .container_stats()
        .await
        .unwrap_or_default()
        .into_iter()
        .filter_map(|stats| {
            let id = stats.attributes?.id;
            Some((id, stats.writable_layer?.used_bytes?.value))
        })
        .collect();
    let mut measured = Vec::new();
    for pod in pods {
        let parent = cgroup::pod_parent(pod);
        let own = containers
            .iter()
            .filter(|c| c.labels.get(LABEL_POD_UID).is_some_and(|uid| uid == pod.uid()));
        let list: Vec<_> = own
            .filter_map(|c| {
                let usage = cgroup_usage::read(version, &format!("{parent}/{}", c.id))?;
                Some(ContainerUsage {
                    name: c.labels.get(LABEL_CONTAINER_NAME).cloned().unwrap_or_default(),
                    started_at: from_nanos(c.created_at),
                    usage,
                    rootfs: layers.get(&c.id).copied(),
                })
            })
            .collect();
        if list.is_empty() {
            continue;
        }
        measured.push(PodUsage {
            usage: cgroup_usage::read(version, &parent),
            network: network_of(runtime, pod).await,
            pod: pod.clone(),
            containers: list,
        });
    }
    measured
}

/// Counters of `eth0` in the pod's network namespace.
async fn network_of(runtime: &dyn Runtime, pod: &Pod) -> Option<(u64, u64)> {
    if pod.host_network() {
        return None;
    }
    let sandboxes = runtime.list_sandboxes(Some(pod.uid())).await.ok()?;
    let newest = sandboxes.into_iter().max_by_key(|sandbox| sandbox.created_at)?;
    let pid = runtime.sandbox(&newest.id).await.ok()?.pid?;
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    interface(&table, "eth0")
}

fn interface(table: &str, name: &str) -> Option<(u64, u64)> {
    let line = table.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Some((*numbers.first()?, *numbers.get(8)?))
}

/// The document.
pub fn summary(node: &str, data_dir: &Path, pods: &[PodUsage], now: Timestamp) -> Value {
    let usage = cgroup_usage::read(cgroup::version(), "/");
    let memory_total = info::meminfo("MemTotal").unwrap_or(0);
    let available = info::meminfo("MemAvailable").unwrap_or(0);
    let fs = info::filesystem(data_dir).map(|(free, total, inodes_free, inodes)| {
        json!({ "time": now, "availableBytes": free, "capacityBytes": total, "usedBytes": total.saturating_sub(free),
            "inodesFree": inodes_free, "inodes": inodes, "inodesUsed": inodes.saturating_sub(inodes_free) })
    });
    json!({
        "node": {
            "nodeName": node,
            "cpu": usage.map(|u| cpu(&u, now)),
            "memory": { "time": now, "availableBytes": available,
                "usageBytes": memory_total.saturating_sub(info::meminfo("MemFree").unwrap_or(0)),
                "workingSetBytes": memory_total.saturating_sub(available),
                "rssBytes": info::meminfo("AnonPages").unwrap_or(0) },
            "fs": fs,
        },
        "pods": pods.iter().map(|pod| pod_stats(pod, now)).collect::<Vec<_>>(),
    })
}

fn cpu(usage: &Usage, now: Timestamp) -> Value {
    json!({ "time": now, "usageCoreNanoSeconds": usage.cpu_nanos })
}

fn memory(usage: &Usage, now: Timestamp) -> Value {
    json!({
        "time": now,
        "availableBytes": usage.memory_limit.map(|limit| limit.saturating_sub(usage.working_set)),
        "usageBytes": usage.memory,
        "workingSetBytes": usage.working_set,
        "rssBytes": usage.rss,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    })
}

fn pod_stats(pod: &PodUsage, now: Timestamp) -> Value {
    let containers: Vec<_> = pod
        .containers
        .iter()
        .map(|c| {
            json!({ "name": c.name, "startTime": c.started_at, "cpu": cpu(&c.usage, now),
                "memory": memory(&c.usage, now),
                "rootfs": c.rootfs.map(|bytes| json!({ "time": now, "usedBytes": bytes })) })
        })
        .collect();
    json!({
        "podRef": { "name": pod.pod.name(), "namespace": pod.pod.namespace(), "uid": pod.pod.uid() },
        "startTime": pod.pod.status.as_ref().and_then(|status| status.start_time.clone()),
        "containers": containers,
        "cpu": pod.usage.map(|u| cpu(&u, now)),
        "memory": pod.usage.map(|u| memory(&u, now)),
        "network": pod.network.map(|(rx, tx)| json!({ "time": now, "name": "eth0", "rxBytes": rx, "txBytes": tx,
            "interfaces": [{ "name": "eth0", "rxBytes": rx, "txBytes": tx }] })),
        "process_stats": pod.usage.map(|u| json!({ "process_count": u.pids })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_counted_apart() {
        let table = "Inter-| Receive | Transmit\n    lo: 1 0 0 0 0 0 0 0 2 0\n  eth0: 100 3 0 0 0 0 0 0 200 4 0 0 0 0 0 0\n";
        assert_eq!(interface(table, "eth0"), Some((100, 200)));
        assert_eq!(interface(table, "eth1"), None);
    }
}
