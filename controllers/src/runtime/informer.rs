//! One watch per kind for all controllers: lists, watches, keeps the [`Store`] current and tells the handlers.
//!
//! Handlers run inside the watch loop, after the store has changed; they only translate an object into queue keys.

use super::{Queue, Store};
use crate::object::{ObjectKey, controller_of_kind};
use futures::StreamExt;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::{any::Any, collections::HashSet, fmt::Debug, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Objects per page of the initial list.
const PAGE: u32 = 1000;
/// The server ends a watch after this time; a watch that is silent for longer is dead.
const WATCH_TIMEOUT: Duration = Duration::from_secs(285);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Short, because a standby that cannot see the cluster cannot take over.
const BACKOFF_MAX: Duration = Duration::from_millis(1000);

/// What a kind must be able to do to be watched.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It was seen for the first time.
    Added(Arc<K>),
    /// It changed (possibly several times between the two states).
    Updated {
        /// What the store held before.
        old: Arc<K>,
        /// What it holds now.
        new: Arc<K>,
    },
    /// It is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest state of the object.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => {
                object
            }
        }
    }

    /// The state before, and the state after, where there is one.
    pub fn states(&self) -> impl Iterator<Item = &Arc<K>> {
        let (first, second) = match self {
            Self::Added(object) | Self::Deleted(object) => (object, None),
            Self::Updated { old, new } => (old, Some(new)),
        };
        std::iter::once(first).chain(second)
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The shared watch on kind `K`.
pub struct Informer<K> {
    api: Api<K>,
    store: Arc<Store<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Kind> Informer<K> {
    pub(super) fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            store: Arc::default(),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }

    /// The cache that this informer fills.
    pub fn store(&self) -> Arc<Store<K>> {
        self.store.clone()
    }

    /// Calls `handler` after each change of the cache. Handlers are added before the informers start.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// Queues each object that changes.
    pub fn enqueue(&self, queue: &Arc<Queue>) {
        let queue = queue.clone();
        self.on_change(move |change| queue.add(ObjectKey::of(&**change.object())));
    }

    /// Queues the controller of kind `P` of each object that changes (the former one too, when it changed hands).
    pub fn enqueue_controller<P: Resource<DynamicType = ()>>(&self, queue: &Arc<Queue>) {
        let queue = queue.clone();
        self.on_change(move |change| {
            for meta in change.states().map(|object| object.meta()) {
                if let Some(owner) = controller_of_kind::<P>(meta) {
                    queue.add(ObjectKey::new(
                        meta.namespace.as_deref().unwrap_or_default(),
                        &owner.name,
                    ));
                }
            }
        });
    }

    async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.list_and_watch(&mut failures) => outcome,
            };
            if let Err(error) = outcome {
                self.report(failures, &error);
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff(&mut failures)) => {}
            }
        }
    }

    /// Returns only to be called again: `Ok` after the server forgot our revision, `Err` if a list failed.
    async fn list_and_watch(&self, failures: &mut u32) -> Result<(), kube::Error> {
        let mut version = self.list().await?;
        *failures = 0;
        loop {
            match self.watch(&mut version, failures).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 410 => return Ok(()),
                Err(error) => {
                    self.report(*failures, &error);
                    tokio::time::sleep(backoff(failures)).await;
                }
            }
        }
    }

    async fn list(&self) -> Result<String, kube::Error> {
        let mut params = ListParams::default().limit(PAGE);
        let mut seen = HashSet::new();
        loop {
            let page = self.api.list(&params).await?;
            for object in page.items {
                seen.insert(ObjectKey::of(&object));
                self.apply(object);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    let gone = self.store.keys().into_iter().filter(|key| !seen.contains(key));
                    gone.for_each(|key| self.remove(&key));
                    self.synced.send_replace(true);
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    async fn watch(&self, version: &mut String, failures: &mut u32) -> Result<(), kube::Error> {
        let params = WatchParams::default().timeout(WATCH_TIMEOUT.as_secs() as u32);
        let mut events = self.api.watch(&params, version).await?.boxed();
        while let Ok(Some(event)) = tokio::time::timeout(WATCH_TIMEOUT * 2, events.next()).await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = object.resource_version().unwrap_or_default();
                    self.apply(object);
                }
                WatchEvent::Deleted(object) => {
                    *version = object.resource_version().unwrap_or_default();
                    self.remove(&ObjectKey::of(&object));
                }
                WatchEvent::Bookmark(mark) => *version = mark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
            *failures = 0;
        }
        Ok(())
    }

    fn apply(&self, object: K) {
        let new = Arc::new(object);
        let change = match self.store.insert(new.clone()) {
            Some(old) if old.meta().resource_version == new.meta().resource_version => return,
            Some(old) if old.meta().uid != new.meta().uid => {
                self.tell(&Change::Deleted(old));
                Change::Added(new)
            }
            Some(old) => Change::Updated { old, new },
            None => Change::Added(new),
        };
        self.tell(&change);
    }

    fn remove(&self, key: &ObjectKey) {
        if let Some(old) = self.store.remove(key) {
            self.tell(&Change::Deleted(old));
        }
    }

    fn tell(&self, change: &Change<K>) {
        self.handlers.read().iter().for_each(|handler| handler(change));
    }

    fn report(&self, failures: u32, error: &kube::Error) {
        let kind = K::plural(&());
        if failures == 3 {
            warn!(%kind, %error, "cannot watch, trying on");
        } else {
            debug!(%kind, %error, "watch interrupted");
        }
    }
}

fn backoff(failures: &mut u32) -> Duration {
    let delay = BACKOFF_MIN.saturating_mul(1 << (*failures).min(10)).min(BACKOFF_MAX);
    *failures += 1;
    delay
}

/// An informer of whatever kind, for the manager.
#[async_trait::async_trait]
pub(super) trait AnyInformer: Send + Sync {
    fn kind(&self) -> String;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    async fn run(self: Arc<Self>, shutdown: CancellationToken);
    async fn synced(&self);
}

#[async_trait::async_trait]
impl<K: Kind> AnyInformer for Informer<K> {
    fn kind(&self) -> String {
        K::plural(&()).into_owned()
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        Informer::run(self, shutdown).await;
    }

    async fn synced(&self) {
        let wait = self.synced.subscribe().wait_for(|synced| *synced).await.map(|_| ());
        debug_assert!(wait.is_ok(), "the sender lives as long as the informer");
    }
}
