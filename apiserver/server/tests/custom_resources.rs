//! CustomResourceDefinitions, from their conditions to their objects.

mod harness;

use std::time::Duration;

use harness::Cluster;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/t/crontabs";

fn definition() -> Value {
    json!({
        "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                        "image": {"type": "string", "default": "busybox"},
                        "replicas": {"type": "integer", "minimum": 0, "maximum": 10},
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
                }}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}],
            }],
        },
    })
}

fn tab(spec: Value) -> Value {
    json!({"kind": "CronTab", "apiVersion": "stable.example.com/v1", "metadata": {"name": "mine"}, "spec": spec})
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not happen");
}

async fn established() -> Cluster {
    let cluster = Cluster::start().await;
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "t"}});
    cluster.post("/api/v1/namespaces", &namespace).await.expect(201);
    cluster.post(DEFINITIONS, &definition()).await.expect(201);
    until("the definition is served", async || cluster.get(TABS).await.code == 200).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_validated_defaulted_and_pruned() {
    let cluster = established().await;
    let spec = json!({"cronSpec": "* * * * */5", "unknown": true});
    let created = cluster
        .post(&format!("{TABS}?fieldValidation=Ignore"), &tab(spec.clone()))
        .await
        .expect(201);
    assert_eq!(created["spec"], json!({"cronSpec": "* * * * */5", "image": "busybox"}));
    assert_eq!(created["metadata"]["generation"], 1);
    cluster.post(&format!("{TABS}?fieldValidation=Strict"), &tab(spec)).await.expect(400);
    for invalid in
        [json!({}), json!({"cronSpec": "never"}), json!({"cronSpec": "* * * * *", "replicas": 11})]
    {
        let refused = cluster.post(TABS, &tab(invalid)).await;
        assert_eq!(refused.code, 422, "{}", String::from_utf8_lossy(&refused.bytes));
    }
    cluster
        .patch(&format!("{TABS}/mine"), "strategic-merge-patch+json", &json!({}))
        .await
        .expect(415);
    let patched = cluster
        .patch(&format!("{TABS}/mine"), "merge-patch+json", &json!({"spec": {"replicas": 3}}))
        .await
        .expect(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 2, "selector": "a=b"}});
    let status = cluster
        .patch(&format!("{TABS}/mine/status"), "merge-patch+json", &status)
        .await
        .expect(200);
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(3), &json!(2))
    );
    let scale = cluster.get(&format!("{TABS}/mine/scale")).await.expect(200);
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(3), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = cluster.request("GET", TABS, &accept, b"").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["mine", "* * * * */5"]), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_appear_in_discovery_and_go_with_their_objects() {
    let cluster = established().await;
    cluster.post(TABS, &tab(json!({"cronSpec": "* * * * *"}))).await.expect(201);
    let group = cluster.get("/apis/stable.example.com/v1").await.expect(200);
    assert!(
        group["resources"]
            .as_array()
            .expect("resources")
            .iter()
            .any(|it| it["shortNames"] == json!(["ct"]))
    );
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let stored = cluster.get(&path).await.expect(200);
    for condition in stored["status"]["conditions"].as_array().expect("conditions") {
        assert_eq!(condition["status"], "True", "{condition}");
    }
    assert_eq!(stored["status"]["storedVersions"], json!(["v1"]));
    let document = cluster.get("/openapi/v3/apis/stable.example.com/v1").await.expect(200);
    assert!(
        document["components"]["schemas"]["com.example.stable.v1.CronTab"].is_object(),
        "{document}"
    );
    let mut watch = cluster.watch(&format!("{TABS}?watch=true")).await;
    assert_eq!(watch.next_named().await.0, "ADDED");
    cluster.delete(&path).await.expect(200);
    assert_eq!(watch.next_named().await.0, "DELETED");
    until("the definition goes", async || cluster.get(&path).await.code == 404).await;
    until("its resource goes", async || cluster.get(TABS).await.code == 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_definition_with_the_same_kind_waits() {
    let cluster = established().await;
    let mut second = definition();
    second["metadata"]["name"] = "others.stable.example.com".into();
    second["spec"]["names"] = json!({"plural": "others", "singular": "other", "kind": "CronTab"});
    cluster.post(DEFINITIONS, &second).await.expect(201);
    let path = format!("{DEFINITIONS}/others.stable.example.com");
    until("the conflict is reported", async || {
        let stored = cluster.get(&path).await.expect(200);
        let conditions = stored["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == "NamesAccepted" && it["status"] == "False")
    })
    .await;
    cluster.get("/apis/stable.example.com/v1/namespaces/t/others").await.expect(404);
}
