//! Several apiservers over one store, and the coming and going of one.

mod harness;

use harness::Cluster;
use pintle_store_api::memory::Memory;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_one_member_is_read_through_the_other_at_once() {
    let store = Memory::new();
    let (one, two) = (Cluster::start_on(store.clone()).await, Cluster::start_on(store).await);
    for round in 0..20 {
        let name = format!("m{round}");
        let created = one.post(MAPS, &map(&name)).await.expect(201);
        let read = two.get(&format!("{MAPS}/{name}")).await.expect(200);
        assert_eq!(read, created);
        let listed = two.get(MAPS).await.expect(200);
        let items = listed["items"].as_array().expect("items");
        assert!(items.iter().any(|item| item["metadata"]["name"] == name.as_str()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_moves_to_another_member_where_it_left_off() {
    let store = Memory::new();
    let (mut one, two) = (Cluster::start_on(store.clone()).await, Cluster::start_on(store).await);
    let listed = one.get(MAPS).await.expect(200);
    let version = |value: &Value| {
        value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
    };
    let path = |version: &str| format!("{MAPS}?watch=true&resourceVersion={version}");
    let mut watch = one.watch(&path(&version(&listed))).await;
    one.post(MAPS, &map("a")).await.expect(201);
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["metadata"]["name"], "a");
    two.post(MAPS, &map("b")).await.expect(201);
    one.stop().await;
    let mut watch = two.watch(&path(&version(&event["object"]))).await;
    two.post(MAPS, &map("c")).await.expect(201);
    assert_eq!(watch.next_named().await, ("ADDED".to_owned(), "b".to_owned()));
    assert_eq!(watch.next_named().await, ("ADDED".to_owned(), "c".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_member_ends_its_watches_and_forgets_nothing() {
    let store = Memory::new();
    let mut first = Cluster::start_on(store.clone()).await;
    first.post(MAPS, &map("kept")).await.expect(201);
    let mut watch = first.watch(&format!("{MAPS}?watch=true")).await;
    assert_eq!(watch.next_named().await.0, "ADDED");
    first.stop().await;
    while watch.next().await.is_some() {}
    let second = Cluster::start_on(store).await;
    second.get(&format!("{MAPS}/kept")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_lose_no_update() {
    let store = Memory::new();
    let (one, two) = (Cluster::start_on(store.clone()).await, Cluster::start_on(store).await);
    one.post(MAPS, &map("counter")).await.expect(201);
    let path = format!("{MAPS}/counter");
    let writer = async |cluster: &Cluster, writer: usize| {
        for round in 0..25 {
            let key = format!("w{writer}r{round}");
            let patch = json!({ "data": { key: "x" } });
            cluster.patch(&path, "merge-patch+json", &patch).await.expect(200);
        }
    };
    tokio::join!(writer(&one, 1), writer(&two, 2), writer(&one, 3));
    let stored = one.get(&path).await.expect(200);
    assert_eq!(stored["data"].as_object().map(serde_json::Map::len), Some(75));
}
