//! The API as a plain HTTP client sees it.

mod harness;

use harness::Cluster;
use pintle_apiserver_storage::Storage;
use pintle_store_api::memory::Memory;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/t/configmaps";

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "t"}});
    cluster.post("/api/v1/namespaces", &namespace).await.expect(201);
    cluster
}

fn map(name: &str, value: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": value}})
}

fn labelled(name: &str, color: &str) -> Value {
    let mut map = map(name, "v");
    map["metadata"]["labels"] = json!({"color": color});
    map
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_created_read_changed_and_deleted() {
    let cluster = cluster().await;
    let created = cluster.post(MAPS, &map("a", "1")).await.expect(201);
    assert_eq!(created["metadata"]["namespace"], "t");
    assert!(
        created["metadata"]["uid"].is_string()
            && created["metadata"]["creationTimestamp"].is_string()
    );
    let read = cluster.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(read, created);
    let mut changed = read.clone();
    changed["data"]["k"] = "2".into();
    let updated = cluster.put(&format!("{MAPS}/a"), &changed).await.expect(200);
    assert_ne!(updated["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    let conflict = cluster.put(&format!("{MAPS}/a"), &changed).await.expect(409);
    assert_eq!((&conflict["kind"], &conflict["reason"]), (&json!("Status"), &json!("Conflict")));
    let deleted = cluster.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(
        (&deleted["status"], &deleted["details"]["uid"]),
        (&json!("Success"), &read["metadata"]["uid"])
    );
    let missing = cluster.get(&format!("{MAPS}/a")).await.expect(404);
    assert_eq!(missing["message"], "configmaps \"a\" not found");
    assert_eq!(missing["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_unique_and_may_be_generated() {
    let cluster = cluster().await;
    cluster.post(MAPS, &map("a", "1")).await.expect(201);
    let again = cluster.post(MAPS, &map("a", "1")).await.expect(409);
    assert_eq!(
        (&again["reason"], &again["message"]),
        (&json!("AlreadyExists"), &json!("configmaps \"a\" already exists"))
    );
    let generated =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "gen-"}});
    let created = cluster.post(MAPS, &generated).await.expect(201);
    let name = created["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_select_page_and_come_as_tables() {
    let cluster = cluster().await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red"), ("d", "red")] {
        cluster.post(MAPS, &labelled(name, color)).await.expect(201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let red = cluster.get(&format!("{MAPS}?labelSelector=color%3Dred")).await.expect(200);
    assert_eq!(names(&red), ["a", "c", "d"]);
    assert_eq!((&red["kind"], &red["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    let one = cluster.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.expect(200);
    assert_eq!(names(&one), ["b"]);
    cluster.get(&format!("{MAPS}?fieldSelector=data.k%3Db")).await.expect(400);
    let first = cluster.get(&format!("{MAPS}?limit=3")).await.expect(200);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().expect("a token");
    cluster.post(MAPS, &map("e", "later")).await.expect(201);
    let second = cluster.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect(200);
    assert_eq!([names(&first), names(&second)].concat(), ["a", "b", "c", "d"]);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = cluster.request("GET", MAPS, &accept, b"").await.expect(200);
    assert_eq!(
        (&table["kind"], table["rows"].as_array().map(Vec::len)),
        (&json!("Table"), Some(5))
    );
    let accept = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let metadata = cluster.request("GET", MAPS, &accept, b"").await.expect(200);
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert_eq!(metadata["items"][0].get("data"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_follow_a_selection() {
    let cluster = cluster().await;
    let listed = cluster.get(MAPS).await.expect(200);
    let version = listed["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let path = format!("{MAPS}?watch=true&labelSelector=color%3Dred&resourceVersion={version}");
    let mut watch = cluster.watch(&path).await;
    cluster.post(MAPS, &labelled("other", "blue")).await.expect(201);
    cluster.post(MAPS, &labelled("a", "red")).await.expect(201);
    let recolour = |color: &str| json!({"metadata": {"labels": {"color": color}}});
    let merge = "merge-patch+json";
    cluster.patch(&format!("{MAPS}/a"), merge, &json!({"data": {"x": "y"}})).await.expect(200);
    cluster.patch(&format!("{MAPS}/a"), merge, &recolour("blue")).await.expect(200);
    cluster.patch(&format!("{MAPS}/a"), merge, &recolour("red")).await.expect(200);
    cluster.delete(&format!("{MAPS}/a")).await.expect(200);
    for kind in ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"] {
        assert_eq!(watch.next_named().await, (kind.to_owned(), "a".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initial_events_end_with_a_bookmark() {
    let cluster = cluster().await;
    cluster.post(MAPS, &map("a", "1")).await.expect(201);
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = cluster.watch(&path).await;
    let mut seen = Vec::new();
    loop {
        let event = watch.next().await.expect("an open watch");
        if event["type"] == "BOOKMARK" {
            assert_eq!(
                event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
                "true"
            );
            assert_eq!(event["object"]["kind"], "ConfigMap");
            break;
        }
        seen.push(event["object"]["metadata"]["name"].clone());
    }
    assert!(seen.contains(&json!("a")), "{seen:?}");
    cluster.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_before_the_cache_says_expired() {
    let store = Memory::new();
    let storage = Storage::new(store.clone());
    for name in ["a", "b"] {
        let bytes = map(name, "old").to_string().into_bytes().into();
        storage
            .create(&format!("/registry/configmaps/t/{name}"), bytes, None)
            .await
            .expect("creates");
    }
    let cluster = Cluster::start_on(store).await;
    let mut watch = cluster.watch(&format!("{MAPS}?watch=true&resourceVersion=2")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(watch.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let cluster = cluster().await;
    let mut held = map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(MAPS, &held).await.expect(201);
    let path = format!("{MAPS}/held");
    let marked = cluster.delete(&path).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    cluster.get(&path).await.expect(200);
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    cluster.patch(&path, "merge-patch+json", &more).await.expect(422);
    let none = json!({"metadata": {"finalizers": null}});
    cluster.patch(&path, "merge-patch+json", &none).await.expect(200);
    cluster.get(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_honour_preconditions_policies_and_dry_run() {
    let cluster = cluster().await;
    cluster.post(MAPS, &map("a", "1")).await.expect(201);
    let path = format!("{MAPS}/a");
    let json_body = [("content-type", "application/json")];
    let options = json!({"preconditions": {"uid": "somebody-else"}}).to_string();
    cluster.request("DELETE", &path, &json_body, options.as_bytes()).await.expect(409);
    cluster.delete(&format!("{path}?dryRun=All")).await.expect(200);
    cluster.get(&path).await.expect(200);
    let options = json!({"propagationPolicy": "Foreground"}).to_string();
    let marked = cluster.request("DELETE", &path, &json_body, options.as_bytes()).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let none = json!({"metadata": {"finalizers": null}});
    cluster.patch(&path, "merge-patch+json", &none).await.expect(200);
    cluster.get(&path).await.expect(404);
    for name in ["x", "y"] {
        cluster.post(MAPS, &labelled(name, "gone")).await.expect(201);
    }
    let deleted = cluster.delete(&format!("{MAPS}?labelSelector=color%3Dgone")).await.expect(200);
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2));
    cluster.get(&format!("{MAPS}/x")).await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_does_everything_but_store() {
    let cluster = cluster().await;
    let dry = cluster.post(&format!("{MAPS}?dryRun=All"), &map("a", "1")).await.expect(201);
    assert!(dry["metadata"]["uid"].is_string());
    cluster.get(&format!("{MAPS}/a")).await.expect(404);
    cluster.post(MAPS, &map("a", "1")).await.expect(201);
    let change = json!({"data": {"k": "2"}});
    let path = format!("{MAPS}/a");
    let dry =
        cluster.patch(&format!("{path}?dryRun=All"), "merge-patch+json", &change).await.expect(200);
    assert_eq!(dry["data"]["k"], "2");
    assert_eq!(cluster.get(&path).await.expect(200)["data"]["k"], "1");
    cluster.post(&format!("{MAPS}?dryRun=Some"), &map("b", "1")).await.expect(422);
}

fn deployment() -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "demo"}]},
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_scale_are_views_of_their_own() {
    let cluster = cluster().await;
    let all = "/apis/apps/v1/namespaces/t/deployments";
    let created = cluster.post(all, &deployment()).await.expect(201);
    assert_eq!(
        (&created["spec"]["replicas"], &created["metadata"]["generation"]),
        (&json!(1), &json!(1))
    );
    let path = format!("{all}/web");
    let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 3, "observedGeneration": 1}});
    let main = cluster.patch(&path, "merge-patch+json", &both).await.expect(200);
    assert_eq!(
        (&main["spec"]["replicas"], &main["metadata"]["generation"]),
        (&json!(7), &json!(2))
    );
    assert_eq!(main["status"].get("replicas"), None, "{}", main["status"]);
    let status = cluster
        .patch(
            &format!("{path}/status"),
            "merge-patch+json",
            &json!({"spec": {"replicas": 1}, "status": {"replicas": 3}}),
        )
        .await
        .expect(200);
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(7), &json!(3))
    );
    assert_eq!(status["metadata"]["generation"], 2);
    let scale = cluster.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], 7);
    assert_eq!(scale["status"], json!({"replicas": 3, "selector": "app=web"}));
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = 2.into();
    assert_eq!(
        cluster.put(&format!("{path}/scale"), &wanted).await.expect(200)["spec"]["replicas"],
        2
    );
    cluster.put(&format!("{path}/scale"), &wanted).await.expect(409);
    cluster
        .patch(&format!("{path}/scale"), "merge-patch+json", &json!({"spec": {"replicas": 4}}))
        .await
        .expect(200);
    assert_eq!(cluster.get(&path).await.expect(200)["spec"]["replicas"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patch_that_changes_nothing_leaves_the_version_alone() {
    let cluster = cluster().await;
    let created = cluster.post(MAPS, &map("a", "1")).await.expect(201);
    let same = json!({"data": {"k": "1"}});
    let patched = cluster.patch(&format!("{MAPS}/a"), "merge-patch+json", &same).await.expect(200);
    assert_eq!(patched["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let operations = json!([{"op": "replace", "path": "/data/k", "value": "2"}]);
    let patched =
        cluster.patch(&format!("{MAPS}/a"), "json-patch+json", &operations).await.expect(200);
    assert_eq!(patched["data"]["k"], "2");
    cluster.patch(&format!("{MAPS}/a"), "unknown-patch+json", &same).await.expect(415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_creates_owns_and_conflicts() {
    let cluster = cluster().await;
    let path = format!("{MAPS}/a");
    let apply = |manager: &str, force: bool| format!("{path}?fieldManager={manager}&force={force}");
    let media = "apply-patch+yaml";
    cluster.patch(&apply("one", false), media, &map("a", "1")).await.expect(201);
    let again = cluster.patch(&apply("one", false), media, &map("a", "1")).await.expect(200);
    let conflict = cluster.patch(&apply("two", false), media, &map("a", "2")).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict", "{conflict}");
    let forced = cluster.patch(&apply("two", true), media, &map("a", "2")).await.expect(200);
    assert_eq!(forced["data"]["k"], "2");
    assert_ne!(forced["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    cluster.patch(&path, media, &map("a", "1")).await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_come_in_three_encodings_and_answers_in_two() {
    let cluster = cluster().await;
    let yaml = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: yaml\ndata:\n  k: \"1\"\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let answer = cluster.request("POST", MAPS, &headers, yaml.as_bytes()).await;
    assert_eq!(answer.code, 201);
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(text.contains("name: yaml"), "{text}");
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x06\x0a\x04\x0a\x02pb";
    let created = cluster.request("POST", MAPS, &protobuf, body).await.expect(201);
    assert_eq!(created["metadata"]["name"], "pb");
    cluster.request("POST", MAPS, &protobuf, b"k8s\0\xff").await.expect(400);
    cluster.request("POST", MAPS, &[("content-type", "text/html")], b"x").await.expect(415);
    let accept = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    cluster.request("GET", MAPS, &accept, b"").await.expect(200);
    let accept = [("accept", "text/html")];
    cluster.request("GET", MAPS, &accept, b"").await.expect(406);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_see_health_and_nothing_else() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.anonymous("GET", "/readyz", &[]).await.code, 200);
    let refused = cluster.anonymous("GET", "/api/v1/namespaces", &[]).await;
    assert!(matches!(refused.code, 401 | 403), "{}", refused.code);
    assert_eq!(refused.json()["kind"], "Status");
    let token = [("authorization", "Bearer nonsense")];
    assert_eq!(cluster.anonymous("GET", "/api/v1/namespaces", &token).await.code, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_speaks_both_dialects() {
    let cluster = Cluster::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = cluster.request("GET", "/apis", &[("accept", accept)], b"").await;
    assert_eq!(answer.headers["content-type"], accept);
    let etag = answer.headers["etag"].to_str().expect("text").to_owned();
    let groups = answer.expect(200);
    let apps = groups["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|group| group["metadata"]["name"] == "apps");
    let resources = &apps.expect("apps")["versions"][0]["resources"];
    assert!(
        resources.as_array().expect("resources").iter().any(|it| it["resource"] == "deployments")
    );
    let known =
        cluster.request("GET", "/apis", &[("accept", accept), ("if-none-match", &etag)], b"").await;
    assert_eq!(known.code, 304);
    assert_eq!(cluster.get("/apis").await.expect(200)["kind"], "APIGroupList");
    let core = cluster.get("/api/v1").await.expect(200);
    let names: Vec<&str> = core["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    for name in ["pods", "pods/eviction", "pods/status", "namespaces/finalize"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(cluster.get("/version").await.expect(200)["gitVersion"], "v1.37.0");
    cluster.get("/apis/nothing.example.com/v1").await.expect(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openapi_lists_documents_by_hash() {
    let cluster = Cluster::start().await;
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url =
        index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let answer = cluster.get(&url).await;
    assert!(answer.headers["cache-control"].to_str().expect("text").contains("immutable"), "{url}");
    let document = answer.expect(200);
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let v2 = [(
        "accept",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf, application/json",
    )];
    let v2 = cluster.request("GET", "/openapi/v2", &v2, b"").await.expect(200);
    assert!(v2["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object());
}
