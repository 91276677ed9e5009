//! `status` of the Node: conditions, addresses, resources, images. Pure.

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use pintle_proto::cri::Image;

use super::info::Machine;

/// How many images a node publishes; upstream's default.
const IMAGES_MAX: usize = 50;

/// What the conditions depend on. `Some(message)` is a problem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The runtime, its network, the agent itself.
    pub not_ready: Vec<String>,
    /// Memory is short.
    pub memory_pressure: bool,
    /// Disk is short.
    pub disk_pressure: bool,
    /// Process ids are short.
    pub pid_pressure: bool,
}

/// The machine's side of the status.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its resources.
    pub machine: Machine,
    /// Its description.
    pub info: NodeSystemInfo,
    /// Its address.
    pub ip: String,
    /// Its name.
    pub hostname: String,
    /// Where the kubelet API listens.
    pub port: u16,
}

/// The status, keeping conditions and fields of others in `previous`.
pub fn generate(
    previous: &NodeStatus,
    facts: &Facts,
    health: &Health,
    images: &[Image],
    now: Timestamp,
) -> NodeStatus {
    let mut status = previous.clone();
    status.capacity = Some(facts.machine.capacity());
    status.allocatable = Some(facts.machine.allocatable());
    status.node_info = Some(facts.info.clone());
    status.addresses = Some(vec![
        NodeAddress { type_: "InternalIP".to_owned(), address: facts.ip.clone() },
        NodeAddress { type_: "Hostname".to_owned(), address: facts.hostname.clone() },
    ]);
    status.daemon_endpoints = Some(NodeDaemonEndpoints {
        kubelet_endpoint: Some(DaemonEndpoint { port: facts.port.into() }),
    });
    status.images = Some(image_list(images));
    let mut conditions = previous.conditions.clone().unwrap_or_default();
    for condition in conditions_of(health) {
        set(&mut conditions, condition, now);
    }
    status.conditions = Some(conditions);
    status
}

fn image_list(images: &[Image]) -> Vec<ContainerImage> {
    let mut list: Vec<_> = images
        .iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    list.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    list.truncate(IMAGES_MAX);
    list
}

fn conditions_of(health: &Health) -> Vec<NodeCondition> {
    let pressure = |kind: &str, has: bool, bad: (&str, &str), good: (&str, &str)| {
        let (reason, message) = if has { bad } else { good };
        condition(kind, has, reason, message)
    };
    let ready = match health.not_ready.is_empty() {
        true => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        false => condition("Ready", false, "KubeletNotReady", &health.not_ready.join("; ")),
    };
    vec![
        pressure(
            "MemoryPressure",
            health.memory_pressure,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            health.disk_pressure,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            health.pid_pressure,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..NodeCondition::default()
    }
}

fn set(list: &mut Vec<NodeCondition>, mut condition: NodeCondition, now: Timestamp) {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    condition.last_heartbeat_time = Some(now.clone());
    condition.last_transition_time = Some(now);
    match list.iter_mut().find(|current| current.type_ == condition.type_) {
        Some(current) => {
            if current.status == condition.status {
                condition.last_transition_time = current.last_transition_time.clone();
            }
            *current = condition;
        }
        None => list.push(condition),
    }
}

/// Whether two statuses differ in more than their heartbeats.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    without_heartbeats(a) != without_heartbeats(b)
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::info;

    fn facts() -> Facts {
        Facts {
            machine: Machine { cpus: 2, memory: 4 << 30, disk: 10 << 30, pods: 110 },
            info: info::system_info("containerd://1.6.20".to_owned()),
            ip: "127.0.0.1".to_owned(),
            hostname: "node-1".to_owned(),
            port: 10_250,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: &NodeStatus) -> NodeCondition {
        status.conditions.iter().flatten().find(|c| c.type_ == "Ready").cloned().unwrap()
    }

    #[test]
    fn a_node_with_a_problem_is_not_ready_and_says_why() {
        let health =
            Health { not_ready: vec!["container runtime is down".to_owned()], ..Health::default() };
        let status = generate(&NodeStatus::default(), &facts(), &health, &[], at(10));
        let condition = ready(&status);
        assert_eq!(
            (condition.status.as_str(), condition.message.as_deref()),
            ("False", Some("container runtime is down"))
        );
    }

    #[test]
    fn heartbeats_alone_are_no_change() {
        let first = generate(&NodeStatus::default(), &facts(), &Health::default(), &[], at(10));
        let second = generate(&first, &facts(), &Health::default(), &[], at(20));
        assert!(!differs(&first, &second));
        assert_eq!(ready(&second).last_transition_time, Some(Time(at(10))));
        assert_eq!(ready(&second).last_heartbeat_time, Some(Time(at(20))));
        let sick = Health { disk_pressure: true, ..Health::default() };
        assert!(differs(&second, &generate(&second, &facts(), &sick, &[], at(30))));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let conditions = Some(vec![condition("NetworkUnavailable", false, "x", "y")]);
        let previous = NodeStatus { conditions, ..NodeStatus::default() };
        let status = generate(&previous, &facts(), &Health::default(), &[], at(10));
        assert!(status.conditions.iter().flatten().any(|c| c.type_ == "NetworkUnavailable"));
    }
}
