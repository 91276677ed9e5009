//! Golden cases: an object, the errors it earns.

use serde_json::{Value, json};

use super::{validate_create, validate_pod_object_update, validate_update};
use crate::{ErrorList, RestMapper, defaults};

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn complete(group: &str, plural: &str, mut object: Value) -> Value {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred(group, plural).expect(plural);
    if object.pointer("/metadata/name").is_none() {
        object["metadata"]["name"] = json!("x");
    }
    if resource.namespaced {
        object["metadata"]["namespace"] = json!("ns");
    }
    defaults::set_defaults(&mut object, resource);
    object
}

fn create(group: &str, plural: &str, object: Value) -> Vec<String> {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred(group, plural).expect(plural);
    texts(&validate_create(&complete(group, plural, object), resource))
}

fn update(group: &str, plural: &str, old: Value, new: Value) -> Vec<String> {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred(group, plural).expect(plural);
    let (old, new) = (complete(group, plural, old), complete(group, plural, new));
    texts(&validate_update(&new, &old, resource))
}

fn template(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn deployment() -> Value {
    json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(json!({"a": "b"}))}})
}

fn pod() -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[test]
fn what_is_right_passes() {
    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let cron = json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job["spec"]}}});
    let cases = [
        ("", "pods", pod()),
        ("apps", "deployments", deployment()),
        ("apps", "replicasets", deployment()),
        ("apps", "statefulsets", deployment()),
        ("apps", "daemonsets", deployment()),
        ("batch", "jobs", job),
        ("batch", "cronjobs", cron),
        ("", "services", json!({"spec": {"ports": [{"port": 80}]}})),
        ("", "configmaps", json!({"data": {"a.b": "c"}})),
        ("", "namespaces", json!({})),
        (
            "",
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "rbac.authorization.k8s.io",
            "clusterroles",
            json!({"metadata": {"name": "system:x"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ),
    ];
    for (group, plural, object) in cases {
        assert_eq!(create(group, plural, object), Vec::<String>::new(), "{plural}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let mut two = pod();
    two["spec"]["containers"] = json!([
        {"name": "c", "image": "i", "ports": [{"containerPort": 0}, {"containerPort": 70000}]},
        {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/x"}], "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
    ]);
    let mut mismatch = deployment();
    mismatch["spec"]["template"]["metadata"]["labels"] = json!({"a": "c"});
    let mut never = deployment();
    never["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let cases: Vec<(&str, &str, Value, Vec<&str>)> = vec![
        ("", "pods", json!({"spec": {}}), vec!["spec.containers: Required value"]),
        (
            "",
            "pods",
            two,
            vec![
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[1].name: Duplicate value: \"c\"",
                "spec.containers[1].image: Required value",
                "spec.containers[1].volumeMounts[0].name: Not found: \"v\"",
                "spec.containers[1].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            "apps",
            "deployments",
            mismatch,
            vec![
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            "apps",
            "deployments",
            never,
            vec![
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        ),
        ("", "services", json!({"spec": {}}), vec!["spec.ports: Required value"]),
        (
            "",
            "services",
            json!({"spec": {"ports": [{"port": 80}, {"port": 80, "name": "b"}]}}),
            vec![
                "spec.ports[0].name: Required value",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ],
        ),
        (
            "",
            "secrets",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            vec!["data[tls.key]: Required value"],
        ),
        (
            "batch",
            "jobs",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            vec![
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ],
        ),
    ];
    for (group, plural, object, expected) in cases {
        assert_eq!(create(group, plural, object), expected, "{plural}");
    }
}

#[test]
fn names_and_labels_are_checked_for_every_kind() {
    let errors =
        create("", "configmaps", json!({"metadata": {"name": "A", "labels": {"a b": "c/"}}}));
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(
        errors[0]
            .starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain")
    );
    let errors = create("", "namespaces", json!({"metadata": {"name": "a.b"}}));
    assert!(errors[0].contains("RFC 1123 label"), "{errors:?}");
}

#[test]
fn selectors_of_workloads_do_not_change() {
    let mut new = deployment();
    new["spec"]["selector"]["matchLabels"] = json!({"c": "d"});
    new["spec"]["template"]["metadata"]["labels"] = json!({"a": "b", "c": "d"});
    let errors = update("apps", "deployments", deployment(), new);
    assert_eq!(
        errors,
        ["spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable"]
    );
    let mut new = deployment();
    new["spec"]["serviceName"] = json!("other");
    let errors = update("apps", "statefulsets", deployment(), new);
    assert!(errors[0].starts_with("spec: Forbidden: updates to statefulset spec"), "{errors:?}");
}

#[test]
fn pods_change_only_where_they_may() {
    let change = |edit: fn(&mut Value)| {
        let mut new = pod();
        edit(&mut new);
        update("", "pods", pod(), new)
    };
    let allowed: [fn(&mut Value); 3] = [
        |pod| pod["spec"]["containers"][0]["image"] = json!("new"),
        |pod| pod["spec"]["activeDeadlineSeconds"] = json!(5),
        |pod| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]),
    ];
    for edit in allowed {
        assert_eq!(change(edit), Vec::<String>::new());
    }
    let forbidden: [fn(&mut Value); 3] = [
        |pod| pod["spec"]["containers"][0]["command"] = json!(["x"]),
        |pod| pod["spec"]["hostNetwork"] = json!(true),
        |pod| pod["spec"]["schedulingGates"] = json!([{"name": "a.b/c"}]),
    ];
    for edit in forbidden {
        let errors = change(edit);
        assert!(errors.len() == 1 && errors[0].contains("Forbidden"), "{errors:?}");
    }
    let (old, mut new) = (complete("", "pods", pod()), complete("", "pods", pod()));
    new["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]);
    assert_eq!(validate_pod_object_update(&new, &old).len(), 1, "only through the subresource");
}

#[test]
fn definitions_of_custom_resources_are_structural() {
    let definition = |schema: Value| {
        json!({"metadata": {"name": "foos.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        }})
    };
    let group = "apiextensions.k8s.io";
    let plural = "customresourcedefinitions";
    assert_eq!(create(group, plural, definition(json!({"type": "object"}))), Vec::<String>::new());
    let errors = create(group, plural, definition(json!({})));
    assert_eq!(
        errors,
        [
            "spec.versions[0].schema.openAPIV3Schema.type: Required value: must not be empty at the root"
        ]
    );
}
