//! The watch cache over the memory store: order, selectors' view, freshness, paging, compaction.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pintle_apiserver_storage::{
    Cache, CacheSpec, Caches, Error, Freshness, ListQuery, Scope, Storage, Watcher,
};
use pintle_machinery::resource::SelectableField;
use pintle_store_api::memory::Memory;
use pintle_store_api::{Store, pb};
use tokio_util::sync::CancellationToken;

struct Fixture {
    store: Arc<Memory>,
    storage: Storage,
    caches: Arc<Caches>,
    pods: Arc<Cache>,
}

/// As the apiserver has it for pods.
fn spec() -> CacheSpec {
    let path = ["spec", "nodeName"].map(str::to_owned).to_vec();
    let node = SelectableField {
        label: "spec.nodeName".to_owned(),
        path: path.clone(),
        default: String::new(),
    };
    CacheSpec { prefix: "/registry/pods/".to_owned(), fields: vec![node], index: path }
}

fn fixture() -> Fixture {
    let store = Memory::new();
    let storage = Storage::new(store.clone());
    let caches = Caches::start(storage.clone(), CancellationToken::new());
    let pods = caches.cache(spec());
    Fixture { store, storage, caches, pods }
}

fn pod(namespace: &str, name: &str) -> Bytes {
    format!(r#"{{"kind":"Pod","metadata":{{"name":"{name}","namespace":"{namespace}"}}}}"#).into()
}

impl Fixture {
    async fn create(&self, namespace: &str, name: &str) -> i64 {
        let key = format!("/registry/pods/{namespace}/{name}");
        self.storage.create(&key, pod(namespace, name), None).await.expect("creates")
    }

    async fn names(&self, query: ListQuery<'_>) -> (Vec<String>, Option<String>) {
        let listing = self.caches.list(&self.pods, &query).await.expect("lists");
        (listing.objects.iter().map(|pod| pod.key().to_string()).collect(), listing.continuation)
    }
}

fn everything<'a>(limit: usize, continuation: &'a str) -> ListQuery<'a> {
    ListQuery {
        namespace: "",
        limit,
        continuation,
        freshness: Freshness::Consistent,
        matches: None,
    }
}

#[tokio::test]
async fn a_consistent_list_sees_every_acknowledged_write() {
    let fixture = fixture();
    for round in 0..50 {
        fixture.create("a", &format!("p{round:02}")).await;
        let (names, _) = fixture.names(everything(0, "")).await;
        assert_eq!(names.len(), round + 1);
    }
}

#[tokio::test]
async fn objects_carry_their_revision_as_resource_version() {
    let fixture = fixture();
    let revision = fixture.create("a", "p").await;
    let pod = fixture.caches.get(&fixture.pods, "a", "p", Freshness::Consistent).await;
    let pod = pod.expect("reads").expect("is there");
    assert_eq!(pod.decode().expect("JSON")["metadata"]["resourceVersion"], revision.to_string());
}

#[tokio::test]
async fn pages_show_one_revision_even_while_objects_come_and_go() {
    let fixture = fixture();
    for name in ["a", "b", "c", "d", "e"] {
        fixture.create("ns", name).await;
    }
    let (first, token) = fixture.names(everything(2, "")).await;
    let last = fixture.create("ns", "bb").await;
    fixture.storage.delete("/registry/pods/ns/bb", last).await.expect("deletes");
    let (second, token) = fixture.names(everything(2, &token.expect("more"))).await;
    let (third, token) = fixture.names(everything(2, &token.expect("more"))).await;
    assert_eq!([first, second, third].concat(), ["ns/a", "ns/b", "ns/c", "ns/d", "ns/e"]);
    assert_eq!(token, None);
}

#[tokio::test]
async fn an_old_revision_is_read_from_the_store_until_it_is_compacted() {
    let fixture = fixture();
    let revision = fixture.create("ns", "a").await;
    fixture.create("ns", "b").await;
    let exact = |revision| ListQuery { freshness: Freshness::Exact(revision), ..everything(0, "") };
    assert_eq!(fixture.names(exact(revision)).await.0, ["ns/a"]);
    let floor = pb::CompactionRequest { revision: revision + 1, physical: false };
    fixture.store.compact(floor).await.expect("compacts");
    let error = fixture.caches.list(&fixture.pods, &exact(revision)).await.expect_err("is gone");
    assert!(matches!(error, Error::Expired { .. }));
}

#[tokio::test]
async fn namespaces_do_not_leak_into_each_other() {
    let fixture = fixture();
    for namespace in ["a", "a-b", "ab", "b"] {
        fixture.create(namespace, "p").await;
    }
    let query = ListQuery { namespace: "a", ..everything(0, "") };
    assert_eq!(fixture.names(query).await.0, ["a/p"]);
}

#[tokio::test]
async fn a_watch_from_a_list_sees_each_change_once_in_order() {
    let fixture = fixture();
    fixture.create("ns", "before").await;
    let listing = fixture.caches.list(&fixture.pods, &everything(0, "")).await.expect("lists");
    let mut watcher = fixture.pods.watch_from(Scope::All, listing.revision).expect("watches");
    let mut expected = Vec::new();
    for round in 0..20 {
        let revision = fixture.create("ns", &format!("p{round}")).await;
        expected.push((revision, false));
        let key = format!("/registry/pods/ns/p{round}");
        fixture.storage.delete(&key, revision).await.expect("deletes");
        expected.push((revision + 1, true));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let events = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        for event in events.expect("an event in time").expect("an open watch") {
            assert_eq!(event.object.revision(), event.revision);
            seen.push((event.revision, event.deleted));
        }
    }
    assert_eq!(seen, expected);
    assert_eq!(watcher.progress(), Some(expected[expected.len() - 1].0));
}

#[tokio::test]
async fn a_watch_of_a_resource_that_goes_sees_the_last_changes_first() {
    let fixture = fixture();
    let created = fixture.create("ns", "p").await;
    let listing = fixture.caches.list(&fixture.pods, &everything(0, "")).await.expect("lists");
    let mut watcher = fixture.pods.watch_from(Scope::All, listing.revision).expect("watches");
    let key = "/registry/pods/ns/p";
    fixture.storage.delete(key, created).await.expect("deletes");
    fixture.caches.wait_revision(created + 1).await.expect("moves on");
    fixture.caches.remove("/registry/pods/");
    let mut seen = Vec::new();
    while let Ok(events) =
        tokio::time::timeout(Duration::from_secs(10), watcher.next()).await.expect("in time")
    {
        seen.extend(events.iter().map(|event| event.deleted));
    }
    assert_eq!(seen, [true], "the deletion");
    assert!(watcher.next().await.is_err(), "it stays closed");
}

#[tokio::test]
async fn a_watch_from_before_the_cache_is_told_to_list_again() {
    let store = Memory::new();
    let storage = Storage::new(store.clone());
    let old = storage.create("/registry/pods/ns/a", pod("ns", "a"), None).await.expect("creates");
    storage.create("/registry/pods/ns/b", pod("ns", "b"), None).await.expect("creates");
    let caches = Caches::start(storage, CancellationToken::new());
    let pods = caches.cache(spec());
    caches.wait(&pods, Freshness::Consistent).await.expect("is ready");
    assert!(matches!(pods.watch_from(Scope::All, old), Err(Error::Expired { .. })));
    assert!(pods.watch_from(Scope::All, old + 1).is_ok());
}

#[tokio::test]
async fn a_write_elsewhere_moves_a_quiet_resource_forward() {
    let fixture = fixture();
    fixture.create("ns", "a").await;
    let (_, _, watcher) = fixture.pods.watch_with_snapshot();
    let config = Bytes::from_static(br#"{"metadata":{"name":"c"}}"#);
    let revision =
        fixture.storage.create("/registry/configmaps/ns/c", config, None).await.expect("creates");
    fixture.caches.wait_revision(revision).await.expect("moves on");
    assert!(watcher.progress().is_none_or(|seen| seen >= revision));
    assert!(fixture.pods.revision() >= revision);
}

#[tokio::test]
async fn a_future_revision_is_refused_after_a_while() {
    let fixture = fixture();
    let current = fixture.create("ns", "a").await;
    let wait = fixture.caches.wait(&fixture.pods, Freshness::NotOlderThan(current + 100)).await;
    assert!(matches!(wait, Err(Error::TooLargeResourceVersion { .. })));
}

async fn names_of(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        let events = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        let events = events.expect("an event in time").expect("an open watch");
        names.extend(events.iter().map(|event| event.object.name().to_owned()));
    }
    names
}

#[tokio::test]
async fn narrow_watchers_get_their_part_and_no_more() {
    let fixture = fixture();
    let placed = |name: &str, node: &str| -> Bytes {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"ns"}},"spec":{{"nodeName":"{node}"}}}}"#
        )
        .into()
    };
    let key = |name: &str| format!("/registry/pods/ns/{name}");
    fixture.caches.wait(&fixture.pods, Freshness::Consistent).await.expect("is ready");
    let before = fixture.caches.revision();
    let early = fixture.create("ns", "early").await;
    let scope = |node: &str| Scope::Indexed(node.into());
    let (_, _, mut one) = fixture.pods.watch_scope_with_snapshot(scope("n1"));
    let (_, _, mut object) = fixture.pods.watch_scope_with_snapshot(Scope::Object("ns/b".into()));
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n1")] {
        fixture.storage.create(&key(name), placed(name, node), None).await.expect("creates");
    }
    fixture.storage.put(&key("early"), early, placed("early", "n1"), None).await.expect("binds");
    assert_eq!(names_of(&mut one, 3).await, ["a", "c", "early"]);
    assert_eq!(names_of(&mut object, 1).await, ["b"]);
    let last = fixture.caches.wait_consistent().await.expect("is current");
    assert_eq!(one.progress(), Some(last));
    // Somebody who comes later finds the same in the ring,.
    let mut later = fixture.pods.watch_from(scope("n1"), before).expect("is in the ring");
    assert_eq!(names_of(&mut later, 3).await, ["a", "c", "early"]);
    let mut other = fixture.pods.watch_from(scope("n2"), before).expect("is in the ring");
    assert_eq!(names_of(&mut other, 1).await, ["b"]);
}
