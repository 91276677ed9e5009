//! Lists and gets: which revision they may or must show, and where that is to be had.

use std::sync::Arc;

use pintle_store_api::{KeyRange, pb};

use crate::caches::{after, relative};
use crate::continuation::Continuation;
use crate::limits::{FRESHNESS_WAIT, PAGE_KEYS};
use crate::{Cache, Caches, Error, Object};

/// How fresh the answer must be, after `resourceVersion` and `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Everything acknowledged before the request.
    Consistent,
    /// Whatever the cache has.
    Any,
    /// At least this revision.
    NotOlderThan(i64),
    /// Exactly this revision.
    Exact(i64),
}

impl Freshness {
    /// Reads the two parameters; `paged`: the request has a limit.
    pub fn of_list(version: &str, matching: &str, paged: bool) -> Result<Self, Error> {
        let revision = parse_version(version)?;
        match (revision, matching) {
            (_, "") if version.is_empty() => Ok(Self::Consistent),
            (0, "") => Ok(Self::Any),
            (revision, "") if paged => Ok(Self::Exact(revision)),
            (revision, "") => Ok(Self::NotOlderThan(revision)),
            (_, "NotOlderThan" | "Exact") if version.is_empty() => Err(Error::BadContinue(
                "resourceVersionMatch is forbidden unless resourceVersion is provided".to_owned(),
            )),
            (0, "NotOlderThan") => Ok(Self::Any),
            (revision, "NotOlderThan") => Ok(Self::NotOlderThan(revision)),
            (0, "Exact") => Err(Error::BadContinue(
                "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"".to_owned(),
            )),
            (revision, "Exact") => Ok(Self::Exact(revision)),
            (_, other) => Err(Error::BadContinue(format!(
                "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            ))),
        }
    }

    /// `resourceVersion` of a get.
    pub fn of_get(version: &str) -> Result<Self, Error> {
        match parse_version(version)? {
            _ if version.is_empty() => Ok(Self::Consistent),
            0 => Ok(Self::Any),
            revision => Ok(Self::NotOlderThan(revision)),
        }
    }
}

/// A resource version as a number; empty is 0.
pub fn parse_version(version: &str) -> Result<i64, Error> {
    if version.is_empty() {
        return Ok(0);
    }
    version.parse::<i64>().ok().filter(|revision| *revision >= 0).ok_or_else(|| {
        Error::BadContinue(format!("Invalid value: \"{version}\": must be a non-negative integer"))
    })
}

/// What to list.
pub struct ListQuery<'a> {
    /// Empty: all.
    pub namespace: &'a str,
    /// 0: no limit.
    pub limit: usize,
    /// The token of the page before, or empty.
    pub continuation: &'a str,
    /// Ignored when there is a token.
    pub freshness: Freshness,
    /// Which objects; `None` for all.
    pub matches: Option<&'a (dyn Fn(&Object) -> bool + Send + Sync)>,
}

/// A page of objects.
#[derive(Clone, Debug)]
pub struct Listing {
    /// In key order.
    pub objects: Vec<Arc<Object>>,
    /// The list's resource version.
    pub revision: i64,
    /// The token of the next page.
    pub continuation: Option<String>,
    /// How many objects follow, where that is known.
    pub remaining: Option<usize>,
}

impl Caches {
    /// One object, or `None`.
    pub async fn get(
        &self,
        cache: &Arc<Cache>,
        namespace: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Option<Arc<Object>>, Error> {
        match self.wait(cache, freshness).await {
            Ok(()) => Ok(cache.snapshot().get(namespace, name).cloned()),
            Err(Error::TooLargeResourceVersion { .. }) if freshness == Freshness::Consistent => {
                self.get_live(cache, namespace, name).await
            }
            Err(error) => Err(error),
        }
    }

    /// One object straight from the store.
    pub async fn get_live(
        &self,
        cache: &Arc<Cache>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Error> {
        let key =
            if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        let stored = self.storage().get(&format!("{}{key}", cache.spec().prefix)).await?;
        stored
            .map(|stored| {
                cache.decoder().object(&key, &stored.bytes, stored.revision).map(Arc::new)
            })
            .transpose()
    }

    /// A page of objects.
    pub async fn list(&self, cache: &Arc<Cache>, query: &ListQuery<'_>) -> Result<Listing, Error> {
        if !query.continuation.is_empty() {
            let from = Continuation::decode(query.continuation)?;
            if from.revision < 0 {
                self.wait(cache, Freshness::Consistent).await?;
                return Ok(list_cached(cache, query, &from.start, None));
            }
            return self.list_at(cache, query, from.revision, &from.start).await;
        }
        match query.freshness {
            Freshness::Exact(revision) => self.list_at(cache, query, revision, "").await,
            freshness => match self.wait(cache, freshness).await {
                Ok(()) => Ok(list_cached(cache, query, "", None)),
                Err(Error::TooLargeResourceVersion { .. })
                    if freshness == Freshness::Consistent =>
                {
                    self.list_stored(cache, query, 0, "").await
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Waits until the cache may answer.
    pub async fn wait(&self, cache: &Arc<Cache>, freshness: Freshness) -> Result<(), Error> {
        match freshness {
            Freshness::Consistent => {
                self.wait_consistent().await?;
            }
            Freshness::NotOlderThan(revision) if cache.revision() < revision => {
                self.wait_revision(revision).await?;
            }
            _ => {}
        }
        if cache.is_ready() {
            return Ok(());
        }
        let starting = || Error::Unavailable("storage is (re)initializing".to_owned());
        tokio::time::timeout(FRESHNESS_WAIT, cache.wait_ready()).await.map_err(|_| starting())
    }

    async fn list_at(
        &self,
        cache: &Arc<Cache>,
        query: &ListQuery<'_>,
        revision: i64,
        start: &str,
    ) -> Result<Listing, Error> {
        if let Some(snapshot) = cache.remembered(revision) {
            return Ok(list_cached(cache, query, start, Some(&snapshot)));
        }
        self.list_stored(cache, query, revision, start).await
    }

    /// Straight from the store, at `revision` (0: newest).
    async fn list_stored(
        &self,
        cache: &Arc<Cache>,
        query: &ListQuery<'_>,
        revision: i64,
        start: &str,
    ) -> Result<Listing, Error> {
        let prefix = &cache.spec().prefix;
        let root = if query.namespace.is_empty() {
            prefix.clone()
        } else {
            format!("{prefix}{}/", query.namespace)
        };
        let range = KeyRange::prefix(root.clone().into());
        let from = format!("{prefix}{start}");
        let mut request = pb::RangeRequest {
            key: if from > root { from.into() } else { root.into() },
            range_end: range.end().cloned().unwrap_or_default(),
            limit: PAGE_KEYS,
            revision,
            ..pb::RangeRequest::default()
        };
        let mut objects = Vec::new();
        loop {
            let response = self.storage().range(request.clone()).await?;
            if request.revision == 0 {
                request.revision = response.header.map_or(0, |header| header.revision);
            }
            for (at, kv) in response.kvs.iter().enumerate() {
                let Some(key) = relative(prefix, &kv.key) else { continue };
                let object = cache.decoder().object(key, &kv.value, kv.mod_revision)?;
                if !query.matches.is_none_or(|matches| matches(&object)) {
                    continue;
                }
                objects.push(Arc::new(object));
                let more = response.more || at + 1 < response.kvs.len();
                if objects.len() == query.limit && more {
                    let start = format!("{key}\0");
                    let continuation = Continuation { revision: request.revision, start }.encode();
                    return Ok(listing(objects, request.revision, Some(continuation)));
                }
            }
            match response.kvs.last() {
                Some(last) if response.more => request.key = after(&last.key),
                _ => return Ok(listing(objects, request.revision, None)),
            }
        }
    }
}

fn listing(objects: Vec<Arc<Object>>, revision: i64, continuation: Option<String>) -> Listing {
    Listing { objects, revision, continuation, remaining: None }
}

/// From a remembered snapshot, or the current one.
fn list_cached(
    cache: &Cache,
    query: &ListQuery<'_>,
    start: &str,
    at: Option<&crate::Snapshot>,
) -> Listing {
    let (snapshot, revision) = match at {
        Some(snapshot) => (Arc::new(snapshot.clone()), snapshot.revision()),
        None => cache.current(),
    };
    let mut found = snapshot.range(query.namespace, start);
    let wanted = |object: &Object| query.matches.is_none_or(|matches| matches(object));
    if query.limit == 0 {
        let objects = found.filter(|object| wanted(object)).cloned().collect();
        return listing(objects, revision, None);
    }
    let mut objects = Vec::with_capacity(query.limit.min(1024));
    for object in found.by_ref() {
        if wanted(object) {
            objects.push(object.clone());
            if objects.len() == query.limit {
                break;
            }
        }
    }
    let rest = found.count();
    if rest == 0 {
        return listing(objects, revision, None);
    }
    let last = objects.last().map_or("", |object| object.key());
    let continuation = Continuation { revision, start: format!("{last}\0") }.encode();
    cache.remember(&snapshot, revision);
    Listing {
        objects,
        revision,
        continuation: Some(continuation),
        remaining: query.matches.is_none().then_some(rest),
    }
}
