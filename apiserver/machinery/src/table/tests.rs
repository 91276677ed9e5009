//! Golden rows.

use serde_json::{Value, json};

use super::{IncludeObject, cells, columns, table};
use crate::{RestMapper, time};

const NOW: &str = "2026-01-01T01:00:00Z";

fn row(group: &str, plural: &str, mut object: Value) -> Vec<Value> {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred(group, plural).expect(plural);
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let row = cells(resource, &object, time::parse(NOW).unwrap());
    assert_eq!(row.len(), columns(resource).len(), "{plural}");
    row
}

fn pod(status: Value) -> Value {
    json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n1"},
        "status": status,
    })
}

#[test]
fn pods_show_what_their_containers_do() {
    let running = json!({"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 0});
    let crashed = json!({
        "name": "b", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:58:00Z"}},
    });
    let completed =
        json!({"name": "b", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
    let cases = [
        (json!({"phase": "Pending"}), "0/2", "Pending", "0"),
        (
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            "2/2",
            "Running",
            "0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running, crashed]}),
            "1/2",
            "CrashLoopBackOff",
            "3 (2m ago)",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [completed, running], "conditions": [{"type": "Ready", "status": "False"}]}),
            "1/2",
            "NotReady",
            "0",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted", "0"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
            "0",
        ),
    ];
    for (status, ready, reason, restarts) in cases {
        let row = row("", "pods", pod(status.clone()));
        assert_eq!(row[..4], ["p", ready, reason, restarts].map(Value::from), "{status}");
    }
}

#[test]
fn pods_show_init_containers_sidecars_and_deletion() {
    let mut object = pod(json!({
        "phase": "Pending",
        "initContainerStatuses": [
            {"name": "i1", "state": {"terminated": {"exitCode": 0}}},
            {"name": "i2", "state": {"terminated": {"exitCode": 2}}, "restartCount": 1},
        ],
    }));
    object["spec"]["initContainers"] = json!([{"name": "i1"}, {"name": "i2"}]);
    assert_eq!(row("", "pods", object.clone())[2], "Init:ExitCode:2");
    object["status"]["initContainerStatuses"][1]["state"] = json!({"running": {}});
    assert_eq!(row("", "pods", object.clone())[2], "Init:1/2");
    object["spec"]["initContainers"][1]["restartPolicy"] = json!("Always");
    object["status"]["initContainerStatuses"][1]["started"] = json!(true);
    object["status"]["initContainerStatuses"][1]["ready"] = json!(true);
    assert_eq!(row("", "pods", object.clone())[1], "1/3");
    object["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(row("", "pods", object)[2], "Terminating");
}

#[test]
fn wide_pods_show_where_they_run() {
    let object = pod(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}));
    assert_eq!(
        row("", "pods", object)[4..],
        ["60m", "10.0.0.1", "n1", "<none>", "<none>"].map(Value::from)
    );
}

#[test]
fn other_kinds_show_their_columns() {
    let cases = [
        (
            "apps",
            "deployments",
            json!({
                "metadata": {"name": "d"},
                "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
            }),
            json!(["d", "2/3", 3, 1, "60m", "c", "i", "a=b"]),
        ),
        (
            "",
            "services",
            json!({
                "metadata": {"name": "s"},
                "spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
            }),
            json!(["s", "NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP", "60m", "<none>"]),
        ),
        (
            "",
            "nodes",
            json!({
                "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/a": ""}},
                "spec": {"unschedulable": true},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
                    "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian", "kernelVersion": "6", "containerRuntimeVersion": "c://1"},
                },
            }),
            json!([
                "n",
                "Ready,SchedulingDisabled",
                "a,worker",
                "60m",
                "v1",
                "1.2.3.4",
                "<none>",
                "Debian",
                "6",
                "c://1"
            ]),
        ),
        (
            "",
            "events",
            json!({
                "metadata": {"name": "e"}, "type": "Normal", "reason": "R", "message": " m ", "count": 2,
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"}, "source": {"component": "c", "host": "h"},
                "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z",
            }),
            json!(["60s", "Normal", "R", "pod/p", "f", "c, h", "m", "60m", 2, "e"]),
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({
                "metadata": {"name": "x"}, "addressType": "IPv4", "ports": [{"port": 80}],
                "endpoints": [{"addresses": ["1"]}, {"addresses": ["2"]}, {"addresses": ["3"]}, {"addresses": ["4"]}],
            }),
            json!(["x", "IPv4", "80", "1,2,3 + 1 more...", "60m"]),
        ),
        (
            "batch",
            "jobs",
            json!({
                "metadata": {"name": "j"}, "spec": {"completions": 2},
                "status": {"succeeded": 1, "startTime": "2026-01-01T00:59:30Z"},
            }),
            json!(["j", "Running", "1/2", "30s", "60m", "", "", "<none>"]),
        ),
        (
            "autoscaling",
            "horizontalpodautoscalers",
            json!({
                "metadata": {"name": "h"},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                ]},
                "status": {"currentReplicas": 2},
            }),
            json!(["h", "Deployment/d", "cpu: <unknown>/80%", "1", 5, 2, "60m"]),
        ),
        (
            "rbac.authorization.k8s.io",
            "clusterroles",
            json!({"metadata": {"name": "r"}}),
            json!(["r", "2026-01-01T00:00:00Z"]),
        ),
        (
            "",
            "persistentvolumeclaims",
            json!({
                "metadata": {"name": "c"}, "spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
                "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
            }),
            json!(["c", "Bound", "v", "1Gi", "RWO", "s", "<unset>", "60m", "Filesystem"]),
        ),
    ];
    for (group, plural, object, expected) in cases {
        assert_eq!(Value::from(row(group, plural, object)), expected, "{plural}");
    }
}

#[test]
fn every_printer_has_a_cell_for_each_column_of_an_empty_object() {
    let mapper = RestMapper::builtin();
    for resource in mapper.resources() {
        let cells = cells(resource, &json!({}), time::parse(NOW).unwrap());
        assert_eq!(cells.len(), columns(resource).len(), "{}", resource.kind);
    }
}

#[test]
fn tables_carry_columns_rows_and_objects() {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred("", "configmaps").unwrap();
    let object = json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    let now = time::parse(NOW).unwrap();
    let meta = json!({"resourceVersion": "5"});
    let shown = table(resource, &[&object], meta, IncludeObject::Metadata, true, now);
    assert_eq!(shown["columnDefinitions"][0]["format"], "name");
    assert_eq!(shown["rows"][0]["cells"], json!(["c", 1, "<unknown>"]));
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(shown["metadata"]["resourceVersion"], "5");
    let bare = table(resource, &[&object], json!({}), IncludeObject::None, false, now);
    assert_eq!(bare["columnDefinitions"], json!([]));
    assert_eq!(bare["rows"][0]["object"], Value::Null);
}
