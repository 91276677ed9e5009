//! StatefulSets and DaemonSets: order, updates and the way back.

use serde_json::{Value, json};

use super::{Driver, names};

const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const DAEMONS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

fn workload(kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "one"}]},
        }},
    });
    object["spec"]
        .as_object_mut()
        .expect("a spec")
        .extend(spec.as_object().expect("fields").clone());
    object
}

fn image(name: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}})
}

fn images(pods: &[Value]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod["spec"]["containers"][0]["image"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_set_keeps_names_and_claims_through_updates() {
    let driver = Driver::start().await;
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}}}}]);
    let spec = json!({"replicas": 2, "serviceName": "db", "volumeClaimTemplates": claims});
    driver.create(SETS, workload("StatefulSet", "db", spec)).await;
    let path = format!("{SETS}/db");
    let is_done = |revision: &Value, size: i32| {
        let revision = revision.clone();
        move |set: &Value| {
            let status = &set["status"];
            status["observedGeneration"] == set["metadata"]["generation"]
                && status["availableReplicas"] == size
                && status["replicas"] == size
                && status["currentRevision"] == status["updateRevision"]
                && status["currentRevision"] != revision
        }
    };
    let first = driver.until("two are there", &path, is_done(&Value::Null, 2)).await;
    let pods = driver.items(PODS).await;
    assert_eq!(names(&pods), ["db-0", "db-1"]);
    assert_eq!(names(&driver.items(CLAIMS).await), ["data-db-0", "data-db-1"]);
    assert_eq!(pods[1]["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");

    driver.merge(&path, image("two")).await;
    let second =
        driver.until("both are new", &path, is_done(&first["status"]["currentRevision"], 2)).await;
    assert_eq!(images(&driver.items(PODS).await), ["two", "two"]);

    driver.merge(&path, json!({"spec": {"replicas": 1}})).await;
    driver.until("one is left", &path, is_done(&Value::Null, 1)).await;
    assert_eq!(names(&driver.items(PODS).await), ["db-0"]);
    assert_eq!(driver.items(CLAIMS).await.len(), 2, "claims outlive their pods");

    if driver.kubectl(&["rollout", "undo", "statefulset/db"]).await.is_some() {
        let back = driver
            .until("it is back", &path, is_done(&second["status"]["currentRevision"], 1))
            .await;
        assert_eq!(back["status"]["currentRevision"], first["status"]["currentRevision"]);
        assert_eq!(images(&driver.items(PODS).await), ["one"]);
        let told = driver.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).await;
        assert!(told.expect("kubectl is there").contains("complete"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_set_runs_on_every_node_that_it_tolerates() {
    let driver = Driver::start().await;
    for name in ["n1", "n2"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        driver.create("/api/v1/nodes", node).await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        driver.merge(&format!("/api/v1/nodes/{name}/status"), ready).await;
    }
    driver.create(DAEMONS, workload("DaemonSet", "agent", json!({}))).await;
    let path = format!("{DAEMONS}/agent");
    let is_done = |set: &Value| {
        let status = &set["status"];
        status["observedGeneration"] == set["metadata"]["generation"]
            && status["desiredNumberScheduled"] == 2
            && status["numberAvailable"] == 2
            && status["updatedNumberScheduled"] == 2
    };
    driver.until("both nodes have one", &path, is_done).await;
    let pinned = |pod: &Value| {
        let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0].as_str().map(str::to_owned)
    };
    let mut nodes: Vec<_> = driver.items(PODS).await.iter().filter_map(pinned).collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2"]);

    driver.merge(&path, image("two")).await;
    driver.until("both are new", &path, is_done).await;
    let all_two = |list: &Value| {
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        images(&pods) == ["two", "two"]
    };
    driver.until("no old pod is left", PODS, all_two).await;
    if let Some(history) = driver.kubectl(&["rollout", "history", "daemonset/agent"]).await {
        assert!(history.contains('1') && history.contains('2'), "{history}");
        driver.kubectl(&["rollout", "undo", "daemonset/agent"]).await;
        driver.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]).await;
        let all_one = |list: &Value| {
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            images(&pods) == ["one", "one"]
        };
        driver.until("the first revision runs again", PODS, all_one).await;
    }
    driver.cluster.delete("/api/v1/nodes/n2").await.expect(200);
    driver
        .until("one node is left", &path, |set| set["status"]["desiredNumberScheduled"] == 1)
        .await;
}
