//! Clients that write and remember, clients that read, and watchers that must miss nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use pintle_store::remote::Remote;
use pintle_store_api::mvccpb::Event;
use pintle_store_api::mvccpb::event::EventType;
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{Store, WatchError, WatchItem, WriteError, pb};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::checker::{Change, Outcome, Read, Seen, Write};
use crate::Result;

/// Every key of the run begins with this.
pub(super) const PREFIX: &str = "/soak/";
const WRITERS: usize = 6;
const READERS: usize = 2;
const KEYS: usize = 12;
/// After a failure, so that a cluster without a leader is not flooded.
const BACKOFF: Duration = Duration::from_millis(20);

/// What all clients share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    clock: AtomicU64,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    writes: Mutex<Vec<Write>>,
    reads: Mutex<Vec<Read>>,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// How many writes have been acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// The clients at work.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    pub(super) fn start(urls: &[String], seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut clients = JoinSet::new();
        for client in 0..WRITERS + READERS {
            // Each begins at another member.
            let mut urls = urls.to_vec();
            let first = client % urls.len();
            urls.rotate_left(first);
            let store = connect(&urls)?;
            let random = StdRng::seed_from_u64(seed ^ ((client as u64 + 1) << 32));
            let shared = Arc::clone(&shared);
            if client < WRITERS {
                clients.spawn(write(store, shared, client, random));
            } else {
                clients.spawn(read(store, shared, random));
            }
        }
        Ok(Self { shared, clients })
    }

    /// Stops the clients; what they remember.
    pub(super) async fn finish(mut self) -> (Vec<Write>, Vec<Read>) {
        self.shared.stop.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
        let writes = std::mem::take(&mut *self.shared.writes.lock());
        (writes, std::mem::take(&mut *self.shared.reads.lock()))
    }
}

pub(super) fn connect(urls: &[String]) -> Result<Remote> {
    Remote::connect(urls, None).map_err(|error| error.to_string())
}

fn key(random: &mut StdRng) -> String {
    format!("{PREFIX}{}", random.random_range(0..KEYS))
}

/// A put of a value of its own, half the time together with the delete of another key.
fn changes(client: usize, number: u64, random: &mut StdRng) -> Vec<Change> {
    let put = Change { key: key(random), value: Some(format!("c{client}-{number}")) };
    // Present in every write to tell the deletes apart: a delete alone has no value.
    let doomed = key(random);
    if doomed == put.key || random.random_ratio(1, 2) {
        return vec![put];
    }
    vec![put, Change { key: doomed, value: None }]
}

fn transaction(changes: &[Change]) -> pb::TxnRequest {
    let op = |change: &Change| {
        let key = change.key.clone().into();
        let request = match &change.value {
            Some(value) => Request::RequestPut(pb::PutRequest {
                key,
                value: value.clone().into(),
                ..Default::default()
            }),
            None => {
                Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
            }
        };
        pb::RequestOp { request: Some(request) }
    };
    pb::TxnRequest { success: changes.iter().map(op).collect(), ..Default::default() }
}

/// Deletes of keys that were not there make no event.
fn happened(changes: Vec<Change>, response: &pb::TxnResponse) -> Vec<Change> {
    use pb::response_op::Response;
    let deleted_nothing = |op: &pb::ResponseOp| matches!(&op.response, Some(Response::ResponseDeleteRange(it)) if it.deleted == 0);
    let with = changes.into_iter().zip(&response.responses);
    with.filter(|(_, op)| !deleted_nothing(op)).map(|(change, _)| change).collect()
}

async fn write(store: Remote, shared: Arc<Shared>, client: usize, mut random: StdRng) {
    let mut number = 0;
    while !shared.stopped() {
        number += 1;
        let mut changes = changes(client, number, &mut random);
        let started = shared.tick();
        let answer = store.txn(transaction(&changes)).await;
        let ended = shared.tick();
        let outcome = match &answer {
            Ok(response) => {
                changes = happened(changes, response);
                shared.acknowledged.fetch_add(1, Ordering::SeqCst);
                Outcome::Acknowledged(response.header.as_ref().map_or(0, |header| header.revision))
            }
            Err(WriteError::Unknown(_)) => Outcome::Unknown,
            Err(WriteError::NotApplied(_) | WriteError::Rejected(_)) => Outcome::Refused,
        };
        shared.writes.lock().push(Write { changes, started, ended, outcome });
        if answer.is_err() {
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

async fn read(store: Remote, shared: Arc<Shared>, mut random: StdRng) {
    while !shared.stopped() {
        let key = key(&mut random);
        let started = shared.tick();
        let request = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
        let Ok(response) = store.range(request).await else {
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        let revision = response.header.map_or(0, |header| header.revision);
        let value = response.kvs.into_iter().next().map(|kv| text(&kv.value));
        shared.reads.lock().push(Read { key, value, revision, started });
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn seen(event: &Event) -> Seen {
    let kv = event.kv.clone().unwrap_or_default();
    let value = (event.r#type() == EventType::Put).then(|| text(&kv.value));
    Seen { revision: kv.mod_revision, change: Change { key: text(&kv.key), value } }
}

/// Watches the run from its beginning, and goes on elsewhere when its member dies, until it has
/// seen `until`.
pub(super) async fn watch(
    store: Remote,
    mut until: tokio::sync::watch::Receiver<Option<i64>>,
) -> Result<Vec<Seen>> {
    let mut events: Vec<Seen> = Vec::new();
    let mut next = 1;
    loop {
        let request = pb::WatchCreateRequest {
            key: PREFIX.into(),
            range_end: super::end_of(PREFIX).into(),
            start_revision: next,
            progress_notify: true,
            ..Default::default()
        };
        let mut stream = match store.watch(request).await {
            Ok(stream) => stream,
            Err(WatchError::Unavailable(_)) => {
                tokio::time::sleep(BACKOFF).await;
                continue;
            }
            Err(error) => return Err(format!("a watch from {next}: {error}")),
        };
        loop {
            let reached = |until: &Option<i64>| until.is_some_and(|until| next > until);
            let item = tokio::select! {
                item = stream.next() => item,
                _ = until.wait_for(reached) => return Ok(events),
            };
            match item {
                Some(Ok(WatchItem::Events { events: more, .. })) => {
                    events.extend(more.iter().map(seen));
                    next = events.last().map_or(next, |last| last.revision + 1);
                }
                Some(Ok(WatchItem::Progress(through))) => next = next.max(through.0 + 1),
                Some(Ok(WatchItem::Created(_))) => {}
                Some(Err(WatchError::Unavailable(_))) | None => break,
                Some(Err(error)) => return Err(format!("a watch from {next}: {error}")),
            }
        }
    }
}
