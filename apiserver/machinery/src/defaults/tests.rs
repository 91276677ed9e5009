//! Golden cases: what is written, what is stored.

use serde_json::{Value, json};

use super::set_defaults;
use crate::RestMapper;

fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred(group, plural).expect(plural);
    set_defaults(&mut object, resource);
    let once = object.clone();
    set_defaults(&mut object, resource);
    assert_eq!(object, once, "defaulting twice changes nothing");
    object
}

#[test]
fn pods_are_defaulted_as_upstream_does() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "serviceAccountName": "sa",
        "containers": [{
            "name": "c", "image": "nginx",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "readinessProbe": {"httpGet": {"port": 80}},
        }],
        "volumes": [
            {"name": "a"}, {"name": "b", "configMap": {"name": "x"}}, {"name": "c", "hostPath": {"path": "/x"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
    }});
    let expected = json!({"metadata": {"name": "p"}, "spec": {
        "serviceAccountName": "sa", "serviceAccount": "sa",
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
        "containers": [{
            "name": "c", "image": "nginx", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
            "readinessProbe": {
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
            },
        }],
        "volumes": [
            {"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
            {"name": "c", "hostPath": {"path": "/x", "type": ""}},
            {"name": "t", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
            ]}},
        ],
    }});
    assert_eq!(defaulted("", "pods", pod), expected);
}

#[test]
fn deployments_get_their_strategy_and_their_template() {
    let deployment = defaulted(
        "apps",
        "deployments",
        json!({"spec": {"template": {"spec": {
            "containers": [{"name": "c", "image": "x:1"}],
        }}}}),
    );
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let rolling = json!({"maxUnavailable": "25%", "maxSurge": "25%"});
    assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
    let template = &spec["template"]["spec"];
    assert_eq!(template["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(template["restartPolicy"], "Always");
    assert_eq!(template.get("enableServiceLinks"), None, "only pods get service links");
    let recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
    let recreate = defaulted("apps", "deployments", recreate);
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn services_get_type_affinity_policies_and_target_ports() {
    let service =
        defaulted("", "services", json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
    let expected = json!({
        "type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    });
    assert_eq!(service["spec"], expected);
    let external =
        defaulted("", "services", json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}));
    assert_eq!(external["spec"].get("internalTrafficPolicy"), None);
}

#[test]
fn other_kinds_get_theirs() {
    let cases = [
        (
            "",
            "namespaces",
            json!({"metadata": {"name": "a"}}),
            json!({
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            }),
        ),
        (
            "",
            "secrets",
            json!({"stringData": {"a": "x"}, "data": {"a": "b2xk", "b": "Yg=="}}),
            json!({"type": "Opaque", "data": {"a": "eA==", "b": "Yg=="}}),
        ),
        (
            "",
            "nodes",
            json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
            json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}),
        ),
        (
            "rbac.authorization.k8s.io",
            "rolebindings",
            json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]}),
            json!({
                "roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io"},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount"}],
            }),
        ),
        (
            "storage.k8s.io",
            "storageclasses",
            json!({}),
            json!({"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
        ),
        (
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            json!({"spec": {"names": {"kind": "Foo"}}}),
            json!({"spec": {
                "names": {"kind": "Foo", "singular": "foo", "listKind": "FooList"},
                "conversion": {"strategy": "None"},
            }}),
        ),
        (
            "networking.k8s.io",
            "networkpolicies",
            json!({"spec": {"egress": [{"ports": [{"port": 1}]}]}}),
            json!({"spec": {
                "egress": [{"ports": [{"port": 1, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"],
            }}),
        ),
        ("coordination.k8s.io", "leases", json!({"spec": {}}), json!({"spec": {}})),
    ];
    for (group, plural, object, expected) in cases {
        assert_eq!(defaulted(group, plural, object), expected, "{plural}");
    }
}

#[test]
fn jobs_count_completions_and_inherit_labels() {
    let job = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}});
    let job = defaulted("batch", "jobs", job);
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    let spec = &job["spec"];
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(1), &json!(1)));
    assert_eq!(spec["backoffLimit"], 6);
    assert_eq!(spec["podReplacementPolicy"], "TerminatingOrFailed");
    let parallel = defaulted("batch", "jobs", json!({"spec": {"parallelism": 3}}));
    assert_eq!(parallel["spec"].get("completions"), None);
}
