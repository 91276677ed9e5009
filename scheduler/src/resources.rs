//! Amounts of resources as integers: parsed once, when a pod or node arrives, compared many times.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a container counts as when scoring, if it requests no CPU: a tenth of a core.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container counts as when scoring, if it requests no memory: 200 MiB.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type List = BTreeMap<String, Quantity>;

/// CPU in thousandths, everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `cpu`, in thousandths of a core.
    pub milli_cpu: i64,
    /// `memory`, in bytes.
    pub memory: i64,
    /// `ephemeral-storage`, in bytes.
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages, by name.
    pub scalars: Vec<(Arc<str>, i64)>,
}

/// The requests of a pod, and what they count as when nodes are scored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// What the pod asks for; this must fit.
    pub actual: Resources,
    /// CPU with the default for containers that ask for none.
    pub scoring_milli_cpu: i64,
    /// Memory with the default for containers that ask for none.
    pub scoring_memory: i64,
}

impl Resources {
    /// Parses a resource list. `pods` is not an amount but a count and is left out.
    pub fn from_list(list: Option<&List>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => resources.milli_cpu = milli_value(quantity),
                "memory" => resources.memory = value(quantity),
                "ephemeral-storage" => resources.ephemeral_storage = value(quantity),
                "pods" => {}
                name => resources.set_scalar(name.into(), value(quantity)),
            }
        }
        resources
    }

    /// The amount of an extended resource; 0 when there is none.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(n, _)| &**n == name).map_or(0, |(_, amount)| *amount)
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes away what was added before.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to the other's.
    fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let sum = f(self.scalar(name), *amount);
            self.set_scalar(name.clone(), sum);
        }
    }

    fn set_scalar(&mut self, name: Arc<str>, amount: i64) {
        match self.scalars.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = amount,
            None => self.scalars.push((name, amount)),
        }
    }
}

impl Requests {
    /// The requests of a pod: the containers and sidecars together, or the hungriest moment of its initialisation,
    /// whichever is more; the pod's own `resources` instead where they are given; the overhead on top.
    pub fn of(spec: &PodSpec) -> Self {
        let overhead = Resources::from_list(spec.overhead.as_ref());
        let mut actual = pod_total(spec, |c| requests_of(c.resources.as_ref()));
        let mut scoring = pod_total(spec, |c| with_defaults(c.resources.as_ref()));
        if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            for total in [&mut actual, &mut scoring] {
                override_with(total, list);
            }
        }
        actual.add(&overhead);
        scoring.add(&overhead);
        Self { actual, scoring_milli_cpu: scoring.milli_cpu, scoring_memory: scoring.memory }
    }
}

fn requests_of(requirements: Option<&ResourceRequirements>) -> Resources {
    Resources::from_list(requirements.and_then(|r| r.requests.as_ref()))
}

fn with_defaults(requirements: Option<&ResourceRequirements>) -> Resources {
    let list = requirements.and_then(|r| r.requests.as_ref());
    let has = |name| list.is_some_and(|list| list.contains_key(name));
    let mut requests = Resources::from_list(list);
    if !has("cpu") {
        requests.milli_cpu = DEFAULT_MILLI_CPU;
    }
    if !has("memory") {
        requests.memory = DEFAULT_MEMORY;
    }
    requests
}

fn pod_total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut initialising = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let requests = of(container);
        let mut moment = requests.clone();
        moment.add(&sidecars);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&requests);
            sidecars.add(&requests);
        }
        initialising.max(&moment);
    }
    running.max(&initialising);
    running
}

fn override_with(total: &mut Resources, list: &List) {
    let pod_level = Resources::from_list(Some(list));
    if list.contains_key("cpu") {
        total.milli_cpu = pod_level.milli_cpu;
    }
    if list.contains_key("memory") {
        total.memory = pod_level.memory;
    }
    for (name, amount) in pod_level.scalars {
        if name.starts_with("hugepages-") {
            total.set_scalar(name, amount);
        }
    }
}

/// A quantity in whole units, rounded up. Validation has refused what does not parse; what slips through counts as nothing.
pub(crate) fn value(quantity: &Quantity) -> i64 {
    pintle_machinery::quantity::Quantity::parse(&quantity.0).map_or(0, |q| q.value())
}

fn milli_value(quantity: &Quantity) -> i64 {
    pintle_machinery::quantity::Quantity::parse(&quantity.0).map_or(0, |q| q.milli_value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn requests(spec: serde_json::Value) -> (i64, i64, i64, i64) {
        let requests = Requests::of(&serde_json::from_value(spec).unwrap());
        let actual = &requests.actual;
        (actual.milli_cpu, actual.memory, requests.scoring_milli_cpu, requests.scoring_memory)
    }

    fn container(cpu: &str, memory: &str, policy: Option<&str>) -> serde_json::Value {
        json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_add_up_and_default_for_scoring() {
        let spec = json!({"containers": [container("250m", "64Mi", None), {"name": "bare"}]});
        assert_eq!(requests(spec), (250, 64 << 20, 350, (64 << 20) + DEFAULT_MEMORY));
    }

    #[test]
    fn init_containers_count_at_their_hungriest() {
        let spec = json!({
            "containers": [container("100m", "1", None)],
            "initContainers": [container("1", "1", None), container("200m", "10", Some("Always")), container("1", "5", None)],
            "overhead": {"cpu": "10m"},
        });
        // The last init container runs beside the sidecar.
        assert_eq!(requests(spec), (1210, 15, 1210, 15));
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let spec = json!({
            "containers": [container("100m", "1", None)],
            "resources": {"requests": {"cpu": "2"}},
        });
        assert_eq!(requests(spec), (2000, 1, 2000, 1));
    }

    #[test]
    fn extended_resources_are_kept_by_name() {
        let spec = json!({"containers": [
            {"name": "a", "resources": {"requests": {"example.com/gpu": "2"}}},
            {"name": "b", "resources": {"requests": {"example.com/gpu": "1", "ephemeral-storage": "1Ki"}}},
        ]});
        let requests = Requests::of(&serde_json::from_value(spec).unwrap());
        assert_eq!(requests.actual.scalar("example.com/gpu"), 3);
        assert_eq!(requests.actual.ephemeral_storage, 1024);
    }
}
