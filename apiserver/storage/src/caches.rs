//! All caches, by the prefix of their keys.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::RwLock;
use pintle_machinery::resource::SelectableField;
use pintle_store_api::pb;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits::{FRESHNESS_WAIT, PAGE_KEYS};
use crate::storage::{Retry, Storage};
use crate::{Cache, Error, Object};

/// Which keys a cache holds, and which fields selectors may look at.
#[derive(Clone, Debug)]
pub struct CacheSpec {
    /// With the slash at the end: `/registry/pods/`.
    pub prefix: String,
    /// Beside name and namespace.
    pub fields: Vec<SelectableField>,
    /// A field that many watchers select one value of (a pod's node); empty for none. One of `fields`.
    pub index: Vec<String>,
}

/// The feed's connection to the store: a new number whenever the caches must list again; 0 = none yet.
type Epoch = u64;

/// The caches and what feeds them.
pub struct Caches {
    storage: Storage,
    caches: RwLock<BTreeMap<String, Arc<Cache>>>,
    /// Every change up to this revision is in the caches.
    pub(crate) fed: watch::Sender<i64>,
    pub(crate) epoch: watch::Sender<Epoch>,
    shutdown: CancellationToken,
}

impl Caches {
    /// Starts following the store. Ends with `shutdown`.
    pub fn start(storage: Storage, shutdown: CancellationToken) -> Arc<Self> {
        let caches = Arc::new(Self {
            storage,
            caches: RwLock::default(),
            fed: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
            shutdown: shutdown.clone(),
        });
        let feed = crate::feed::run(caches.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = feed => {}
            }
        });
        caches
    }

    /// The write path below.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The cache for `spec`, started if there is none. One prefix has one spec: the first.
    pub fn cache(self: &Arc<Self>, spec: CacheSpec) -> Arc<Cache> {
        if let Some(cache) = self.caches.read().get(&spec.prefix) {
            return cache.clone();
        }
        let mut caches = self.caches.write();
        if let Some(cache) = caches.get(&spec.prefix) {
            return cache.clone();
        }
        let cache = Arc::new(Cache::new(spec.clone(), self.fed.subscribe()));
        caches.insert(spec.prefix, cache.clone());
        let (load, shutdown) = (keep_loaded(self.clone(), cache.clone()), self.shutdown.clone());
        let retired = cache.retired().clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = retired.cancelled() => {}
                () = load => {}
            }
        });
        cache
    }

    /// Drops a cache whose resource is gone; its watchers are given what they have not seen, then closed.
    pub fn remove(&self, prefix: &str) {
        if let Some(cache) = self.caches.write().remove(prefix) {
            cache.retired().cancel();
        }
    }

    /// The cache that holds `key`, and the rest of the key.
    pub(crate) fn of_key<'a>(&self, key: &'a str) -> Option<(Arc<Cache>, &'a str)> {
        let caches = self.caches.read();
        let below = (Bound::Unbounded, Bound::Included(key));
        let (prefix, cache) = caches.range::<str, _>(below).next_back()?;
        let rest = key.strip_prefix(prefix.as_str())?;
        Some((cache.clone(), rest))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Cache>> {
        self.caches.read().values().cloned().collect()
    }

    /// Whether every cache has been filled.
    pub fn are_ready(&self) -> bool {
        self.caches.read().values().all(|cache| cache.is_ready())
    }

    /// The revision up to which all caches are complete.
    pub fn revision(&self) -> i64 {
        *self.fed.borrow()
    }

    /// Waits until the caches hold everything that was acknowledged before the call.
    pub async fn wait_consistent(&self) -> Result<i64, Error> {
        let revision = self.read_index().await?;
        self.wait_revision(revision).await?;
        Ok(revision)
    }

    /// Waits until the caches hold everything up to `revision`.
    pub async fn wait_revision(&self, revision: i64) -> Result<(), Error> {
        let mut fed = self.fed.subscribe();
        let reached =
            tokio::time::timeout(FRESHNESS_WAIT, fed.wait_for(|fed| *fed >= revision)).await;
        match reached {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TooLargeResourceVersion {
                requested: u64::try_from(revision).unwrap_or(0),
                current: u64::try_from(self.revision()).unwrap_or(0),
            }),
        }
    }

    async fn read_index(&self) -> Result<i64, Error> {
        let mut retry = Retry::start();
        loop {
            match self.storage.store().read_index().await {
                Ok(revision) => return Ok(revision.0),
                Err(error) => retry.pause(error.to_string(), Error::Unavailable).await?,
            }
        }
    }
}

/// Fills the cache, and again whenever the feed had to start anew.
async fn keep_loaded(caches: Arc<Caches>, cache: Arc<Cache>) {
    let mut epoch = caches.epoch.subscribe();
    let mut loaded: Epoch = 0;
    loop {
        let Ok(now) = epoch.wait_for(|epoch| *epoch > loaded).await.map(|epoch| *epoch) else {
            return;
        };
        match load(&caches.storage, &cache).await {
            Ok((objects, revision)) => {
                if *epoch.borrow() == now && cache.fill(objects, revision) {
                    loaded = now;
                }
            }
            Err(error) => {
                tracing::warn!(prefix = %cache.spec().prefix, %error, "cannot list, trying again");
            }
        }
    }
}

type Loaded = (OrdMap<Arc<str>, Arc<Object>>, i64);

/// All objects of a resource at one revision.
async fn load(storage: &Storage, cache: &Cache) -> Result<Loaded, Error> {
    let prefix = &cache.spec().prefix;
    let range_end = pintle_store_api::KeyRange::prefix(prefix.clone().into()).end().cloned();
    let mut request = pb::RangeRequest {
        key: prefix.clone().into(),
        range_end: range_end.expect("a prefix of ASCII has an end"),
        limit: PAGE_KEYS,
        ..pb::RangeRequest::default()
    };
    let mut objects = OrdMap::new();
    loop {
        let response = storage.range(request.clone()).await?;
        if request.revision == 0 {
            request.revision = response.header.map_or(0, |header| header.revision);
        }
        for kv in &response.kvs {
            let Some(key) = relative(prefix, &kv.key) else { continue };
            match cache.decoder().object(key, &kv.value, kv.mod_revision) {
                Ok(object) => {
                    objects.insert(object.key().clone(), Arc::new(object));
                }
                Err(error) => tracing::error!(%prefix, %error, "a stored object cannot be read"),
            }
        }
        match response.kvs.last() {
            Some(last) if response.more => request.key = after(&last.key),
            _ => return Ok((objects, request.revision)),
        }
    }
}

/// The key below a prefix, when it is text.
pub(crate) fn relative<'a>(prefix: &str, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)
}

/// The first key after `key`.
pub(crate) fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}
