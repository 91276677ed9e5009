//! Quality of service: what a pod's requests and limits make of it. Pure.

use pintle_machinery::{Quantity, object};
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`, by cpu and memory of all containers.
pub(crate) fn class_of(pod: &Value) -> &'static str {
    let containers = || {
        ["initContainers", "containers"]
            .into_iter()
            .flat_map(|list| object::get_list(pod, &["spec", list]))
    };
    let of_pod = pod.pointer("/spec/resources").filter(|resources| !is_bare(resources));
    if let Some(resources) = of_pod {
        return if is_guaranteed(resources) { "Guaranteed" } else { "Burstable" };
    }
    let resources =
        |container: &'_ Value| container.get("resources").cloned().unwrap_or(Value::Null);
    if containers().all(|container| is_bare(&resources(container))) {
        "BestEffort"
    } else if containers().all(|container| is_guaranteed(&resources(container))) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn amount(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    let quantity = Quantity::from_value(resources.get(list)?.get(name)?).ok()?;
    (!quantity.is_zero()).then_some(quantity)
}

/// No request and no limit of cpu or memory.
fn is_bare(resources: &Value) -> bool {
    ["requests", "limits"].into_iter().all(|list| {
        ["cpu", "memory"].into_iter().all(|name| amount(resources, list, name).is_none())
    })
}

/// Both limits set, and each request, where there is one, equal to its limit.
fn is_guaranteed(resources: &Value) -> bool {
    ["cpu", "memory"].into_iter().all(|name| {
        let limit = amount(resources, "limits", name);
        let request = amount(resources, "requests", name);
        limit.is_some() && (request.is_none() || request == limit)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_and_limits_decide() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        let cases = [
            (json!([{}]), "BestEffort"),
            (json!([{"resources": {"requests": {"example.com/gpu": "1"}}}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "100m"}}}]), "Burstable"),
            (json!([{"resources": full}]), "Guaranteed"),
            (json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]), "Guaranteed"),
            (json!([{"resources": full}, {}]), "Burstable"),
            (json!([{"resources": {"limits": {"cpu": "1"}}}]), "Burstable"),
            (
                json!([{"resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}]),
                "Burstable",
            ),
        ];
        for (containers, expected) in cases {
            let pod = json!({"spec": {"containers": containers}});
            assert_eq!(class_of(&pod), expected, "{containers}");
        }
    }

    #[test]
    fn init_containers_count() {
        let pod = json!({"spec": {"containers": [{}], "initContainers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        assert_eq!(class_of(&pod), "Burstable");
    }
}
