use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u-1",
            "labels": { "app": "web" }, "annotations": { "note": "a \"b\"" } },
        "spec": { "serviceAccountName": "robot", "containers": [{
            "name": "a", "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" } } }] },
    }))
    .unwrap()
}

fn facts() -> Facts {
    Facts {
        node_name: "node-1".to_owned(),
        host_ip: "192.0.2.2".to_owned(),
        pod_ips: vec!["10.244.0.7".to_owned()],
        allocatable: [("cpu".to_owned(), Quantity("4".to_owned()))].into(),
    }
}

fn sources() -> Sources {
    let map = json!({ "metadata": { "name": "m" }, "data": { "key": "from-map", "other": "2" } });
    let secret = json!({ "metadata": { "name": "s" }, "data": { "pass": "aHVzaA==" } });
    let service = json!({ "metadata": { "name": "kubernetes", "namespace": "default" },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443 }] } });
    let web = json!({ "metadata": { "name": "my-web", "namespace": "ns" },
        "spec": { "clusterIP": "10.96.0.9", "ports": [{ "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }] } });
    let headless = json!({ "metadata": { "name": "db", "namespace": "ns" },
        "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } });
    Sources {
        config_maps: [("m".to_owned(), Some(serde_json::from_value(map).unwrap()))].into(),
        secrets: [("s".to_owned(), Some(serde_json::from_value(secret).unwrap()))].into(),
        services: [service, web, headless].map(|s| serde_json::from_value(s).unwrap()).into(),
    }
}

fn environment_of(container: serde_json::Value) -> Result<HashMap<String, String>, Error> {
    let mut container = container;
    container["name"] = json!("a");
    container["resources"] = json!({ "limits": { "cpu": "1500m", "memory": "64Mi" } });
    let container = serde_json::from_value(container).unwrap();
    Ok(environment(&pod(), &container, &sources(), &facts())?.into_iter().collect())
}

#[test]
fn references_see_what_came_before_and_services() {
    let env = environment_of(json!({ "env": [
        { "name": "A", "value": "1" },
        { "name": "B", "value": "$(A)-$(C)-$$(A)-$" },
        { "name": "C", "value": "$(KUBERNETES_SERVICE_HOST)" },
    ] }))
    .unwrap();
    assert_eq!(env["B"], "1-$(C)-$(A)-$");
    assert_eq!(env["C"], "10.96.0.1");
    assert_eq!(env["KUBERNETES_PORT_443_TCP_ADDR"], "10.96.0.1");
    assert_eq!(env["MY_WEB_SERVICE_PORT_DNS"], "53");
    assert_eq!(env["MY_WEB_PORT_53_UDP"], "udp://10.96.0.9:53");
    assert!(!env.contains_key("DB_SERVICE_HOST"));
}

#[test]
fn values_come_from_objects_fields_and_resources() {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let resource = |name: &str, divisor: &str| json!({ "resourceFieldRef": { "resource": name, "divisor": divisor } });
    let cases = [
        (json!({ "configMapKeyRef": { "name": "m", "key": "key" } }), "from-map"),
        (json!({ "secretKeyRef": { "name": "s", "key": "pass" } }), "hush"),
        (field("metadata.name"), "p"),
        (field("metadata.labels['app']"), "web"),
        (field("metadata.annotations"), "note=\"a \\\"b\\\"\""),
        (field("spec.nodeName"), "node-1"),
        (field("spec.serviceAccountName"), "robot"),
        (field("status.hostIP"), "192.0.2.2"),
        (field("status.podIP"), "10.244.0.7"),
        (resource("limits.cpu", "0"), "2"),
        (resource("limits.cpu", "1m"), "1500"),
        (resource("limits.memory", "1Mi"), "64"),
        (resource("requests.memory", "0"), "67108864"),
    ];
    for (from, expected) in cases {
        let env = environment_of(json!({ "env": [{ "name": "X", "valueFrom": from }] })).unwrap();
        assert_eq!(env["X"], expected, "{from}");
    }
}

#[test]
fn whole_objects_are_taken_with_a_prefix_and_yield_to_single_ones() {
    let env = environment_of(json!({
        "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "m" } }, { "configMapRef": { "name": "m" } }],
        "env": [{ "name": "other", "value": "mine" }],
    }))
    .unwrap();
    assert_eq!((env["P_key"].as_str(), env["other"].as_str()), ("from-map", "mine"));
}

#[test]
fn what_is_missing_is_an_error_unless_it_is_optional() {
    let key = |name: &str, key: &str, optional: bool| json!({ "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": name, "key": key, "optional": optional } } }] });
    assert_eq!(
        environment_of(key("none", "key", false)).unwrap_err().to_string(),
        "configmap \"none\" not found"
    );
    assert_eq!(
        environment_of(key("m", "none", false)).unwrap_err().to_string(),
        "couldn't find key none in ConfigMap ns/m"
    );
    assert!(!environment_of(key("none", "key", true)).unwrap().contains_key("X"));
    let from = json!({ "envFrom": [{ "secretRef": { "name": "none" } }] });
    assert_eq!(environment_of(from).unwrap_err().to_string(), "secret \"none\" not found");
}
