//! One watch over the whole store that feeds all caches.
//!
//! One watch, not one per resource: its revision moves with every write, so a cache whose resource is
//! quiet is still known to be current, and consistent reads need no progress requests. After a lost
//! connection it resumes where it was; only when that revision has been compacted do all caches list again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pintle_store_api::{WatchError, WatchItem, mvccpb, pb};

use crate::cache::RawEvent;
use crate::{Cache, Caches};

/// Between attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn run(caches: Arc<Caches>) {
    // 0: start from now, then the caches list.
    let mut next = 0;
    loop {
        match follow(&caches, &mut next).await {
            WatchError::Compacted(floor) => {
                tracing::warn!(%floor, "the watch fell behind the compaction, listing again");
                caches.all().iter().for_each(|cache| cache.reset());
                next = 0;
                continue;
            }
            error => tracing::debug!(%error, next, "the watch of the store ended, resuming"),
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn follow(caches: &Arc<Caches>, next: &mut i64) -> WatchError {
    let everything = pb::WatchCreateRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        start_revision: *next,
        progress_notify: true,
        ..pb::WatchCreateRequest::default()
    };
    let mut stream = match caches.storage().store().watch(everything).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    while let Some(item) = stream.next().await {
        let revision = match item {
            Ok(WatchItem::Created(revision)) => {
                if *next > 0 {
                    continue;
                }
                // From here on nothing is missed: the caches may list.
                caches.epoch.send_modify(|epoch| *epoch += 1);
                revision
            }
            Ok(WatchItem::Events { revision, events }) => {
                dispatch(caches, &events);
                revision
            }
            Ok(WatchItem::Progress(revision)) => revision,
            Err(error) => return error,
        };
        *next = (*next).max(revision.0 + 1);
        caches.fed.send_if_modified(|fed| {
            let newer = revision.0 > *fed;
            *fed = revision.0.max(*fed);
            newer
        });
    }
    WatchError::Unavailable("the stream ended".to_owned())
}

/// Hands each cache its events, neighbours of the same cache together.
fn dispatch(caches: &Caches, events: &[mvccpb::Event]) {
    let mut batch: Option<(Arc<Cache>, Vec<RawEvent>)> = None;
    for event in events {
        let Some(kv) = &event.kv else { continue };
        let Ok(key) = std::str::from_utf8(&kv.key) else { continue };
        let Some((cache, rest)) = caches.of_key(key) else { continue };
        let raw = RawEvent {
            key: rest.into(),
            revision: kv.mod_revision,
            value: (event.r#type() == mvccpb::event::EventType::Put).then(|| kv.value.clone()),
        };
        match &mut batch {
            Some((current, events)) if Arc::ptr_eq(current, &cache) => events.push(raw),
            _ => {
                if let Some((current, events)) = batch.replace((cache, vec![raw])) {
                    current.apply(events);
                }
            }
        }
    }
    if let Some((cache, events)) = batch {
        cache.apply(events);
    }
}
