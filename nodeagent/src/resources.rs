//! Requests and limits as the kernel counts them, and the quality of service that follows from them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pintle_proto::cri::LinuxContainerResources;

mod quantity;

pub use quantity::{milli_value, value};

/// The kernel's smallest share.
const SHARES_MIN: i64 = 2;
/// Shares of one CPU.
const SHARES_PER_CPU: i64 = 1024;
/// The default CFS period, µs.
pub const QUOTA_PERIOD: i64 = 100_000;
/// The kernel refuses a smaller quota, µs.
const QUOTA_MIN: i64 = 1000;

/// Who is killed first when the node runs out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    /// No requests, no limits.
    BestEffort,
    /// Some requests.
    Burstable,
    /// Every container has equal requests and limits for CPU and memory.
    Guaranteed,
}

impl QosClass {
    /// As in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// What a container asks for; limits stand in for requests that are not given.
pub fn request(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    let resources = resources?;
    let find = |map: &Option<BTreeMap<String, Quantity>>| map.as_ref()?.get(name).cloned();
    find(&resources.requests).or_else(|| find(&resources.limits))
}

/// What a container may use at most.
pub fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    resources?.limits.as_ref()?.get(name).cloned()
}

/// The class of a pod.
pub fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let containers = all_containers(spec);
    let mut any = false;
    let mut guaranteed = true;
    for container in containers {
        for name in ["cpu", "memory"] {
            let resources = container.resources.as_ref();
            let limit = limit(resources, name).map(|q| milli_value(&q)).filter(|m| *m > 0);
            let request = request(resources, name).map(|q| milli_value(&q)).filter(|m| *m > 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// CPU requests as weights.
pub fn cpu_shares(milli_cpu: i64) -> i64 {
    (milli_cpu * SHARES_PER_CPU / 1000).clamp(SHARES_MIN, 262_144)
}

/// CPU limits as µs of a period.
pub fn cpu_quota(milli_cpu: i64) -> i64 {
    (milli_cpu * QUOTA_PERIOD / 1000).max(QUOTA_MIN)
}

/// How readily the kernel kills a container when memory is short.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    if pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= 2_000_000_000) {
        return -997;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = request(container.resources.as_ref(), "memory").map_or(0, |q| value(&q));
            let share = 1000 * request / node_memory.max(1);
            (1000 - share).clamp(3, 999)
        }
    }
}

/// One container's share of the machine.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    node_memory: i64,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let request = request(resources, "cpu").map_or(0, |q| milli_value(&q));
    let cpu_limit = limit(resources, "cpu").map_or(0, |q| milli_value(&q));
    let memory = limit(resources, "memory").map_or(0, |q| value(&q));
    LinuxContainerResources {
        cpu_period: QUOTA_PERIOD,
        cpu_quota: if cpu_limit > 0 { cpu_quota(cpu_limit) } else { 0 },
        cpu_shares: cpu_shares(request),
        memory_limit_in_bytes: memory,
        oom_score_adj: oom_score_adj(pod, container, node_memory),
        ..Default::default()
    }
}

/// What a whole pod requests and may use: `(milli cpu, bytes)` each; 0 means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodTotals {
    /// Requested CPU.
    pub cpu_request: i64,
    /// CPU limit, when every container has one.
    pub cpu_limit: i64,
    /// Memory limit, when every container has one.
    pub memory_limit: i64,
}

/// The sums over a pod's containers.
pub fn pod_totals(pod: &Pod) -> PodTotals {
    let Some(spec) = &pod.spec else { return PodTotals::default() };
    let sum_limits = |name: &str, read: fn(&Quantity) -> i64| {
        all_containers(spec)
            .map(|c| limit(c.resources.as_ref(), name).map(|q| read(&q)))
            .sum::<Option<i64>>()
            .unwrap_or(0)
    };
    PodTotals {
        cpu_request: spec
            .containers
            .iter()
            .filter_map(|c| request(c.resources.as_ref(), "cpu"))
            .map(|q| milli_value(&q))
            .sum(),
        cpu_limit: sum_limits("cpu", milli_value),
        memory_limit: sum_limits("memory", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } }),
        )
        .unwrap()
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let cases = [
            (json!([{ "name": "a" }]), QosClass::BestEffort),
            (
                json!([{ "name": "a", "resources": { "requests": { "cpu": "100m" } } }]),
                QosClass::Burstable,
            ),
            (
                json!([{ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }]),
                QosClass::Guaranteed,
            ),
            (
                json!([{ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }, { "name": "b" }]),
                QosClass::Burstable,
            ),
            (
                json!([{ "name": "a", "resources": {
                    "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m", "memory": "1Gi" } } }]),
                QosClass::Burstable,
            ),
        ];
        for (containers, class) in cases {
            assert_eq!(qos_class(&pod(containers.clone())), class, "{containers}");
        }
    }

    #[test]
    fn shares_and_quota_stay_inside_the_kernels_bounds() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(500), 512);
        assert_eq!(cpu_quota(1), 1000);
        assert_eq!(cpu_quota(1500), 150_000);
    }

    #[test]
    fn a_pod_without_a_limit_somewhere_is_unlimited() {
        let limited = json!({ "name": "a", "resources": { "limits": { "memory": "64Mi" } } });
        assert_eq!(pod_totals(&pod(json!([limited]))).memory_limit, 64 << 20);
        assert_eq!(pod_totals(&pod(json!([limited, { "name": "b" }]))).memory_limit, 0);
    }
}
