//! The watches: each decodes in a task of its own, compiles objects to what the engine keeps, and drops the rest.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::cluster::{Budget, ClaimInfo, OwnerKey};
use crate::engine::Update;
use crate::node::NodeFacts;
use crate::pod::PodInfo;

/// What comes from a watch.
pub(super) enum Watched {
    Update(Box<Update>),
    /// A source has delivered its first list.
    Synced,
}

/// How to recognise an object after it is gone.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    name: String,
    uid: String,
}

/// What a watch makes of its objects: of one that is there, and of one that is gone.
trait Source: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    fn present(self, key: &Key) -> Update;
    fn absent(key: Key) -> Update;
}

/// Starts all watches; returns how many of them have to [sync](Watched::Synced) before anything is scheduled.
pub(super) fn spawn_all(
    tasks: &mut JoinSet<()>,
    client: &Client,
    updates: &mpsc::Sender<Watched>,
    stop: &CancellationToken,
) -> usize {
    let all = watcher::Config::default;
    // Pods that have run to their end take nothing; they leave the watch when they do.
    let unfinished = all().fields("status.phase!=Succeeded,status.phase!=Failed");
    let mut spawner = Spawner { tasks, client, updates, stop, required: 0 };
    spawner.spawn::<Node>(all(), true);
    spawner.spawn::<Pod>(unfinished, true);
    spawner.spawn::<Namespace>(all(), true);
    spawner.spawn::<PersistentVolumeClaim>(all(), true);
    spawner.spawn::<PersistentVolume>(all(), true);
    spawner.spawn::<StorageClass>(all(), true);
    spawner.spawn::<PodDisruptionBudget>(all(), false);
    spawner.spawn::<Service>(all(), false);
    spawner.spawn::<ReplicaSet>(all(), false);
    spawner.spawn::<StatefulSet>(all(), false);
    spawner.spawn::<ReplicationController>(all(), false);
    spawner.required
}

struct Spawner<'a> {
    tasks: &'a mut JoinSet<()>,
    client: &'a Client,
    updates: &'a mpsc::Sender<Watched>,
    stop: &'a CancellationToken,
    required: usize,
}

impl Spawner<'_> {
    fn spawn<K: Source>(&mut self, config: watcher::Config, required: bool) {
        self.required += usize::from(required);
        let api: Api<K> = Api::all(self.client.clone());
        let (updates, stop) = (self.updates.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(api, config, &updates, required) => {}
            }
        });
    }
}

/// Follows one kind of object until the engine is gone.
async fn follow<K: Source>(
    api: Api<K>,
    config: watcher::Config,
    updates: &mpsc::Sender<Watched>,
    required: bool,
) {
    let mut tracker = Tracker { known: HashSet::new(), listed: HashSet::new(), synced: !required };
    let mut events = watcher(api, config).backoff(Backoff::default()).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                for watched in tracker.track(event) {
                    if updates.send(watched).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => debug!(kind = %K::kind(&()), %error, "cannot watch"),
        }
    }
}

/// Remembers which objects are there, so that those missing from a later list are reported as gone.
struct Tracker {
    known: HashSet<Key>,
    listed: HashSet<Key>,
    synced: bool,
}

impl Tracker {
    fn track<K: Source>(&mut self, event: watcher::Event<K>) -> Vec<Watched> {
        let update = |update: Update| Watched::Update(Box::new(update));
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let key = key(&object);
                let present = update(object.present(&key));
                self.listed.insert(key);
                vec![present]
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let before = std::mem::replace(&mut self.known, listed);
                let gone = before.into_iter().filter(|key| !self.known.contains(key));
                let mut watched: Vec<_> = gone.map(|key| update(K::absent(key))).collect();
                if !std::mem::replace(&mut self.synced, true) {
                    watched.push(Watched::Synced);
                }
                watched
            }
            watcher::Event::Apply(object) => {
                let key = key(&object);
                let present = update(object.present(&key));
                self.known.insert(key);
                vec![present]
            }
            watcher::Event::Delete(object) => {
                let key = key(&object);
                self.known.remove(&key);
                vec![update(K::absent(key))]
            }
        }
    }
}

/// How long to wait before a watch is tried again: short at first, for an apiserver that fails over.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(100) * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        Some(delay.min(Duration::from_secs(5)).mul_f64(rand::random_range(0.75..1.25)))
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

fn key<K: Source>(object: &K) -> Key {
    Key {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

impl Source for Pod {
    fn present(self, _: &Key) -> Update {
        Update::Pod(Arc::new(PodInfo::new(&self)))
    }

    fn absent(key: Key) -> Update {
        Update::PodGone(key.uid.into())
    }
}

impl Source for Node {
    fn present(self, _: &Key) -> Update {
        Update::Node(Box::new(NodeFacts::new(&self)))
    }

    fn absent(key: Key) -> Update {
        Update::NodeGone(key.name)
    }
}

impl Source for Namespace {
    fn present(self, key: &Key) -> Update {
        Update::Namespace(key.name.clone(), Some(self.metadata.labels.unwrap_or_default()))
    }

    fn absent(key: Key) -> Update {
        Update::Namespace(key.name, None)
    }
}

impl Source for PersistentVolumeClaim {
    fn present(self, key: &Key) -> Update {
        Update::Claim(key.namespace.clone(), key.name.clone(), Some(ClaimInfo::new(&self)))
    }

    fn absent(key: Key) -> Update {
        Update::Claim(key.namespace, key.name, None)
    }
}

impl Source for PersistentVolume {
    fn present(self, key: &Key) -> Update {
        Update::Volume(key.name.clone(), Some(Box::new(self)))
    }

    fn absent(key: Key) -> Update {
        Update::Volume(key.name, None)
    }
}

impl Source for StorageClass {
    fn present(self, key: &Key) -> Update {
        let waits = self.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        Update::Class(key.name.clone(), waits)
    }

    fn absent(key: Key) -> Update {
        Update::Class(key.name, false)
    }
}

impl Source for PodDisruptionBudget {
    fn present(self, key: &Key) -> Update {
        Update::Budget(key.namespace.clone(), key.name.clone(), Some(Budget::new(&self)))
    }

    fn absent(key: Key) -> Update {
        Update::Budget(key.namespace, key.name, None)
    }
}

impl Source for Service {
    fn present(self, key: &Key) -> Update {
        let selector = self.spec.and_then(|spec| spec.selector).unwrap_or_default();
        Update::Service(key.namespace.clone(), key.name.clone(), Some(selector))
    }

    fn absent(key: Key) -> Update {
        Update::Service(key.namespace, key.name, None)
    }
}

impl Source for ReplicaSet {
    fn present(self, key: &Key) -> Update {
        let selector = Some(self.spec.selector);
        Update::Owner(owner("ReplicaSet", key.clone()), selector)
    }

    fn absent(key: Key) -> Update {
        Update::Owner(owner("ReplicaSet", key), None)
    }
}

impl Source for StatefulSet {
    fn present(self, key: &Key) -> Update {
        let selector = Some(self.spec.selector);
        Update::Owner(owner("StatefulSet", key.clone()), selector)
    }

    fn absent(key: Key) -> Update {
        Update::Owner(owner("StatefulSet", key), None)
    }
}

impl Source for ReplicationController {
    fn present(self, key: &Key) -> Update {
        let labels = self.spec.and_then(|spec| spec.selector);
        let selector =
            labels.map(|labels| LabelSelector { match_labels: Some(labels), ..Default::default() });
        Update::Owner(owner("ReplicationController", key.clone()), selector)
    }

    fn absent(key: Key) -> Update {
        Update::Owner(owner("ReplicationController", key), None)
    }
}

fn owner(kind: &'static str, key: Key) -> OwnerKey {
    OwnerKey { kind, namespace: key.namespace, name: key.name }
}
