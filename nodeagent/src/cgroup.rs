//! Control groups of pods on cgroup v1 (one tree for each controller, also hybrid) and v2 (one tree).
//!
//! The pod's group is ours: weights and limits of the pod as a whole. The groups of its containers
//! inside it are the runtime's.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::pod::PodExt;
use crate::resources::{self, QosClass};

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// The v1 controllers in which a pod's group is removed when it ends.
const V1_CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "perf_event",
    "net_cls",
    "net_prio",
    "systemd",
    "rdma",
    "misc",
];

/// Which layout this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree for each controller.
    V1,
    /// One tree.
    V2,
}

/// Looks at the machine.
pub fn version() -> Version {
    if Path::new(ROOT).join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 }
}

/// The group of a pod, below the root of every tree.
pub fn pod_parent(pod: &Pod) -> String {
    let class = match resources::qos_class(pod) {
        QosClass::Guaranteed => "",
        QosClass::Burstable => "/burstable",
        QosClass::BestEffort => "/besteffort",
    };
    format!("/kubepods{class}/pod{}", pod.uid())
}

/// The folder of a group in the tree of a controller.
pub fn folder(version: Version, controller: &str, group: &str) -> PathBuf {
    let group = group.trim_start_matches('/');
    match version {
        Version::V1 => Path::new(ROOT).join(controller).join(group),
        Version::V2 => Path::new(ROOT).join(group),
    }
}

/// Creates the pod's group and sets what the pod as a whole may use.
pub fn prepare(pod: &Pod) -> io::Result<()> {
    let group = pod_parent(pod);
    let totals = resources::pod_totals(pod);
    let version = version();
    match version {
        Version::V1 => {
            for controller in ["cpu", "memory"] {
                std::fs::create_dir_all(folder(version, controller, &group))?;
            }
            let cpu = folder(version, "cpu", &group);
            write(&cpu, "cpu.shares", resources::cpu_shares(totals.cpu_request))?;
            if totals.cpu_limit > 0 {
                write(&cpu, "cpu.cfs_period_us", resources::QUOTA_PERIOD)?;
                write(&cpu, "cpu.cfs_quota_us", resources::cpu_quota(totals.cpu_limit))?;
            }
            if totals.memory_limit > 0 {
                let memory = folder(version, "memory", &group);
                write(&memory, "memory.limit_in_bytes", totals.memory_limit)?;
            }
        }
        Version::V2 => {
            let path = folder(version, "", &group);
            std::fs::create_dir_all(&path)?;
            delegate(&path)?;
            write(&path, "cpu.weight", weight(resources::cpu_shares(totals.cpu_request)))?;
            if totals.cpu_limit > 0 {
                let quota = resources::cpu_quota(totals.cpu_limit);
                write(&path, "cpu.max", format!("{quota} {}", resources::QUOTA_PERIOD))?;
            }
            if totals.memory_limit > 0 {
                write(&path, "memory.max", totals.memory_limit)?;
            }
        }
    }
    Ok(())
}

/// v2 weights of 1 to 10,000 from v1 shares of 2 to 262,144.
fn weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// Hands the controllers down from the root to the parent of `path`.
fn delegate(path: &Path) -> io::Result<()> {
    let ancestors: Vec<_> = path.ancestors().skip(1).take_while(|p| p.starts_with(ROOT)).collect();
    for folder in ancestors.into_iter().rev() {
        for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
            // A controller that this kernel lacks is refused; the limits below then say so.
            if let Err(error) = std::fs::write(folder.join("cgroup.subtree_control"), controller) {
                tracing::debug!(folder = %folder.display(), controller, %error, "not delegated");
            }
        }
    }
    Ok(())
}

fn write(folder: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    std::fs::write(folder.join(file), value.to_string())
}

/// Removes the pod's group once its containers are gone.
pub fn remove(pod: &Pod) {
    let group = pod_parent(pod);
    let folders: Vec<PathBuf> = match version() {
        Version::V1 => V1_CONTROLLERS.iter().map(|c| folder(Version::V1, c, &group)).collect(),
        Version::V2 => vec![folder(Version::V2, "", &group)],
    };
    for path in folders.iter().filter(|path| path.is_dir()) {
        let children = std::fs::read_dir(path).into_iter().flatten().flatten();
        for child in children.filter(|child| child.path().is_dir()) {
            remove_empty(&child.path());
        }
        remove_empty(path);
    }
}

fn remove_empty(path: &Path) {
    if let Err(error) = std::fs::remove_dir(path) {
        tracing::debug!(path = %path.display(), %error, "cgroup stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_stand_under_their_class() {
        let pod = |resources: serde_json::Value| -> Pod {
            serde_json::from_value(json!({ "metadata": { "uid": "u" },
                "spec": { "containers": [{ "name": "a", "resources": resources }] } }))
            .unwrap()
        };
        assert_eq!(pod_parent(&pod(json!({}))), "/kubepods/besteffort/podu");
        assert_eq!(
            pod_parent(&pod(json!({ "requests": { "cpu": "1" } }))),
            "/kubepods/burstable/podu"
        );
        assert_eq!(
            pod_parent(&pod(json!({ "limits": { "cpu": "1", "memory": "1Gi" } }))),
            "/kubepods/podu"
        );
    }

    #[test]
    fn weights_span_the_range_of_shares() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }
}
