//! `/metrics/resource` and `/metrics`: the same figures as Prometheus text.

use std::fmt::Write as _;

use super::cgroup_usage::{self, Usage};
use super::summary::PodUsage;
use crate::cgroup;
use crate::node::info;
use crate::pod::PodExt;

/// A family of samples in Prometheus' text format.
struct Family {
    text: String,
}

impl Family {
    fn new(name: &str, kind: &str, help: &str) -> Self {
        Self { text: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n") }
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}

fn seconds(usage: &Usage) -> f64 {
    usage.cpu_nanos as f64 / 1e9
}

/// Upstream's resource metrics, which metrics-server reads.
pub fn resource(pods: &[PodUsage]) -> String {
    let node = cgroup_usage::read(cgroup::version(), "/").unwrap_or_default();
    let working_set = info::meminfo("MemTotal")
        .unwrap_or(0)
        .saturating_sub(info::meminfo("MemAvailable").unwrap_or(0));
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        let mut family = Family::new(name, kind, help);
        for (labels, value) in samples {
            family.sample(name, &labels, value);
        }
        text.push_str(&family.text);
    };
    let containers = |value: fn(&Usage) -> f64| {
        pods.iter()
            .flat_map(|pod| {
                pod.containers.iter().map(move |c| {
                    let labels = format!(
                        "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                        c.name,
                        pod.pod.namespace(),
                        pod.pod.name()
                    );
                    (labels, value(&c.usage))
                })
            })
            .collect::<Vec<_>>()
    };
    let of_pods = |value: fn(&Usage) -> f64| {
        pods.iter()
            .filter_map(|pod| {
                let labels =
                    format!("{{namespace=\"{}\",pod=\"{}\"}}", pod.pod.namespace(), pod.pod.name());
                Some((labels, value(&pod.usage?)))
            })
            .collect::<Vec<_>>()
    };
    let starts = pods
        .iter()
        .flat_map(|pod| {
            pod.containers.iter().map(|c| {
                let labels = format!(
                    "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                    c.name,
                    pod.pod.namespace(),
                    pod.pod.name()
                );
                (labels, c.started_at.as_second() as f64)
            })
        })
        .collect();
    let bytes: fn(&Usage) -> f64 = |usage| usage.working_set as f64;
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        containers(seconds),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        containers(bytes),
    );
    family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        starts,
    );
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        vec![(String::new(), seconds(&node))],
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        vec![(String::new(), working_set as f64)],
    );
    family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
        of_pods(seconds),
    );
    family(
        "pod_memory_working_set_bytes",
        "gauge",
        "Current working set of the pod in bytes",
        of_pods(bytes),
    );
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        vec![(String::new(), 0.0)],
    );
    text
}

/// The agent's own figures.
pub fn kubelet(node: &str, pods: usize, containers: usize) -> String {
    let mut text = String::new();
    for (name, help, value) in [
        ("kubelet_running_pods", "Number of pods that have a running pod sandbox", pods),
        ("kubelet_running_containers", "Number of containers currently running", containers),
    ] {
        let mut family = Family::new(name, "gauge", help);
        family.sample(name, "", value as f64);
        text.push_str(&family.text);
    }
    let mut family =
        Family::new("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    family.sample("kubelet_node_name", &format!("{{node=\"{node}\"}}"), 1.0);
    text.push_str(&family.text);
    text
}
