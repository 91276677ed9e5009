//! Watchers that go on at another member, from where they were, when theirs is gone; and sometimes
//! for no reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::{Store, WatchError, WatchItem, WatchStream, mvccpb, pb, prefix_end};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::cluster::{Cluster, Running};
use super::requests::record;
use crate::history::{Delivery, Event};

/// A new watcher may fall behind by so much at once that it has to read history.
const PAUSE_MS: u64 = 400;

pub(super) struct Watcher {
    cluster: Arc<Cluster>,
    rng: StdRng,
    place: usize,
    number: usize,
    prefix: String,
    /// Seen up to here.
    through: Arc<AtomicI64>,
}

/// Why a watcher needs another member.
enum Ended {
    Broken,
    Compacted(i64),
}

fn event(event: &mvccpb::Event) -> Event {
    let kv = event.kv.clone().unwrap_or_default();
    Event {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        modified: kv.mod_revision,
        record: (event.r#type() == EventType::Put).then(|| record(&kv)),
        previous: event.prev_kv.as_ref().map(record),
    }
}

impl Watcher {
    /// A watcher of a prefix from a revision on.
    pub(super) fn new(cluster: Arc<Cluster>, name: usize, prefix: String, start: i64) -> Self {
        let seed = cluster.plan.seed ^ (0x7761_7463_6865_0000 + name as u64);
        let number = cluster.recorder.watch(format!("w{name} {prefix}"), prefix.clone(), start);
        let through = Arc::new(AtomicI64::new(start - 1));
        let rng = StdRng::seed_from_u64(seed);
        Self { cluster, rng, place: name, number, prefix, through }
    }

    /// Up to where it has seen everything, for whoever waits for it.
    pub(super) fn through(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.through)
    }

    fn saw(&self, delivery: Delivery) {
        self.cluster.recorder.delivery(self.number, delivery);
    }

    fn next(&self) -> i64 {
        self.through.load(Ordering::Relaxed) + 1
    }

    /// Watches for ever.
    pub(super) async fn run(mut self) {
        loop {
            let up = self.cluster.up();
            self.place = if up.is_empty() { 0 } else { up[self.place % up.len()] };
            match self.cluster.running(self.place) {
                Some(running) => match self.watch(&running).await {
                    Ended::Broken => {}
                    Ended::Compacted(floor) => {
                        self.saw(Delivery::Compacted(floor));
                        self.through.store(floor - 1, Ordering::Relaxed);
                    }
                },
                None => sleep(Duration::from_millis(20)).await,
            }
            sleep(Duration::from_millis(self.rng.random_range(1..50))).await;
            self.place = self.rng.random_range(0..self.cluster.places());
        }
    }

    async fn watch(&mut self, running: &Running) -> Ended {
        // From the first key on, where the prefix is empty.
        let prefix = if self.prefix.is_empty() { "\0" } else { &self.prefix };
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        let everything = Bytes::from_static(b"\0");
        let end = if self.prefix.is_empty() { Some(everything) } else { prefix_end(&key) };
        let request = pb::WatchCreateRequest {
            key,
            range_end: end.unwrap_or_default(),
            start_revision: self.next(),
            prev_kv: true,
            progress_notify: true,
            ..Default::default()
        };
        match running.member.handle().watch(request).await {
            Ok(stream) => {
                self.saw(Delivery::Resumed(self.next()));
                self.follow(running, stream).await
            }
            Err(WatchError::Compacted(floor)) => Ended::Compacted(floor.0),
            Err(WatchError::Rejected(_) | WatchError::Unavailable(_)) => Ended::Broken,
        }
    }

    async fn follow(&mut self, running: &Running, mut stream: WatchStream) -> Ended {
        loop {
            let item = tokio::select! {
                biased;
                () = running.gone.cancelled() => return Ended::Broken,
                item = stream.next() => item,
            };
            match item {
                Some(Ok(WatchItem::Created(_))) => {}
                Some(Ok(WatchItem::Events { revision, events })) => {
                    let events = events.iter().map(event).collect();
                    self.saw(Delivery::Events { revision: revision.0, events });
                    self.through.fetch_max(revision.0, Ordering::Relaxed);
                    if self.rng.random_bool(0.02) {
                        return Ended::Broken;
                    }
                    if self.rng.random_bool(0.05) {
                        sleep(Duration::from_millis(self.rng.random_range(1..PAUSE_MS))).await;
                    }
                }
                Some(Ok(WatchItem::Progress(revision))) => {
                    if revision.0 > self.through.load(Ordering::Relaxed) {
                        self.saw(Delivery::Progress(revision.0));
                        self.through.fetch_max(revision.0, Ordering::Relaxed);
                    }
                }
                Some(Err(WatchError::Compacted(floor))) => return Ended::Compacted(floor.0),
                Some(Err(_)) | None => return Ended::Broken,
            }
        }
    }
}
