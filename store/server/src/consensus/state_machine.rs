//! The replicated state: openraft's view of `pintle-mvcc`.
//!
//! One thread applies committed entries, many in one write batch. After the
//! batch is written its events go to the watch hub, then the proposers get their answers. A
//! [`Fault`] is returned to openraft, which stops the node: it may no longer answer.
//!
//! A lone entry that is quick to apply is not handed to that thread and back, which would cost one client's put a
//! tenth of its time. openraft asks for one thing at a time, so the thread is idle then.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use pintle_mvcc::{Fault, Mvcc, Outcome, Reader};
use pintle_proto::raft::{Command, CommandBatch};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::codec;
use super::snapshot::{SnapshotBuilder, SnapshotData, SnapshotStore, StateSnapshot};
use super::types::{Applied, Entry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig};
use crate::auth::SimpleTokens;
use crate::host::{blocking, own};
use crate::lease::Leases;
use crate::metrics::{DISK_FIRST, Histogram};
use crate::watch::Hub;

/// One write batch holds at most this many log entries: bounds the memory of a replay.
const BATCH_ENTRIES_MAX: usize = 256;
/// And about this many bytes of commands.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// An entry with more bytes of commands is not quick to apply.
const QUICK_BYTES_MAX: usize = 8 << 10;

/// What is stored beside the state, in the same write batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct AppliedState {
    pub(crate) log_id: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl AppliedState {
    pub(crate) fn from_bytes(bytes: Option<&Bytes>) -> io::Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| codec::decode(bytes))
    }

    pub(crate) fn index(&self) -> u64 {
        self.log_id.map_or(0, |id| id.index())
    }

    pub(crate) fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.log_id, last_membership: self.membership.clone() }
    }
}

/// What others may know of the state machine.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) reader: Reader,
    pub(crate) snapshots: SnapshotStore,
    state: Mutex<AppliedState>,
    /// The index of the last applied entry.
    applied: watch::Sender<u64>,
    /// Snapshots installed since the start.
    pub(crate) installs: AtomicU64,
    /// How long it took to apply a batch and write it.
    pub(crate) commits: Histogram,
    /// The apply thread has ended.
    pub(crate) ended: CancellationToken,
}

impl Shared {
    /// Announces the index of the last applied entry.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The membership after the newest applied change.
    pub(crate) fn membership(&self) -> StoredMembership {
        self.state.lock().membership.clone()
    }

    fn set(&self, state: AppliedState) {
        let index = state.index();
        *self.state.lock() = state;
        self.applied.send_replace(index);
    }
}

/// openraft's handle on the apply thread.
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// The thread's; gone with it.
    applier: Weak<Mutex<Applier>>,
}

/// An entry to apply, and whom to tell.
struct Item {
    log_id: LogId,
    content: Content,
    responder: Option<ApplyResponder<TypeConfig>>,
}

enum Content {
    Blank,
    Encoded(Bytes),
    Commands(Vec<Command>),
    Membership(Membership),
}

impl Item {
    fn new((entry, responder): (Entry, Option<ApplyResponder<TypeConfig>>)) -> Self {
        let content = match entry.payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Normal(batch) => Content::Encoded(batch.0),
            EntryPayload::Membership(membership) => Content::Membership(membership),
        };
        Self { log_id: entry.log_id, content, responder }
    }

    fn bytes(&self) -> usize {
        if let Content::Encoded(bytes) = &self.content { bytes.len() } else { 0 }
    }
}

type Done = oneshot::Sender<Result<(), Fault>>;

enum Request {
    Apply { items: Vec<Item>, done: Done },
    Install { data: SnapshotData, done: Done },
}

impl StateMachine {
    /// Opens the state under `dir` and starts its apply thread, which ends with this value.
    pub(crate) fn open(
        dir: &Path,
        options: pintle_mvcc::Options,
        snapshots: SnapshotStore,
        hub: impl FnOnce(Reader) -> Arc<Hub>,
        leases: Arc<Leases>,
        tokens: Arc<SimpleTokens>,
    ) -> io::Result<Self> {
        let mvcc = Mvcc::open(dir, options).map_err(io::Error::other)?;
        let applied = mvcc.applied_meta();
        let state = AppliedState::from_bytes(applied.as_ref())?;
        let reader = mvcc.reader();
        let shared = Arc::new(Shared {
            reader: reader.clone(),
            snapshots,
            applied: watch::Sender::new(state.index()),
            state: Mutex::new(state),
            installs: AtomicU64::new(0),
            commits: Histogram::new(DISK_FIRST),
            ended: CancellationToken::new(),
        });
        // openraft sends one request and waits for its answer.
        let (requests, queue) = mpsc::channel(1);
        let hub = hub(reader);
        let applier = Applier { mvcc, shared: Arc::clone(&shared), hub, leases, tokens };
        let owned = Arc::new(Mutex::new(applier));
        let applier = Arc::downgrade(&owned);
        let ended = shared.ended.clone().drop_guard();
        own("raft-apply", async move {
            run(&owned, queue).await;
            drop(owned);
            drop(ended);
        })?;
        Ok(Self { shared, requests, applier })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    async fn ask(&self, request: impl FnOnce(Done) -> Request) -> io::Result<()> {
        let stopped = || io::Error::other("the apply thread has stopped");
        let (done, wait) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?.map_err(io::Error::other)
    }

    /// Applies a lone entry here and now, if that is quick. Otherwise gives it back.
    fn apply_quick(&self, mut item: Item) -> Result<Option<Item>, Fault> {
        let bytes = match &item.content {
            Content::Encoded(bytes) if bytes.len() <= QUICK_BYTES_MAX => bytes.clone(),
            _ => return Ok(Some(item)),
        };
        let Some(applier) = self.applier.upgrade() else { return Ok(Some(item)) };
        let mut applier = applier.lock();
        let commands = decode(bytes)?;
        let is_quick = applier.mvcc.is_quick(&commands);
        item.content = Content::Commands(commands);
        if !is_quick {
            return Ok(Some(item));
        }
        applier.apply(vec![item]).map(|()| None)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.shared.state.lock().clone();
        Ok((state.log_id, state.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let item = Item::new(item?);
            bytes += item.bytes();
            items.push(item);
            if items.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX {
                let items = std::mem::take(&mut items);
                bytes = 0;
                self.ask(|done| Request::Apply { items, done }).await?;
            }
        }
        if items.len() == 1
            && let Some(lone) = items.pop()
        {
            items.extend(self.apply_quick(lone).inspect_err(say).map_err(io::Error::other)?);
        }
        if items.is_empty() {
            return Ok(());
        }
        self.ask(|done| Request::Apply { items, done }).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(Arc::clone(&self.shared))
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        self.ask(|done| Request::Install { data, done }).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StateSnapshot>, io::Error> {
        if self.shared.state.lock().log_id.is_none() {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let take = move || shared.snapshots.checkpoint(&shared.reader);
        let snapshot = blocking(take).await.map_err(io::Error::other)??;
        Ok(Some(snapshot))
    }
}

struct Applier {
    mvcc: Mvcc,
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    tokens: Arc<SimpleTokens>,
}

async fn run(applier: &Mutex<Applier>, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.recv().await {
        let (result, done) = match request {
            Request::Apply { items, done } => (applier.lock().apply(items), done),
            Request::Install { data, done } => (applier.lock().install(&data), done),
        };
        let failed = result.as_ref().inspect_err(|fault| say(fault)).is_err();
        // The asker may be gone when the node shuts down.
        drop(done.send(result));
        if failed {
            return;
        }
    }
}

fn say(fault: &Fault) {
    tracing::error!(%fault, "the state cannot go on; stopping");
}

impl Applier {
    fn apply(&mut self, items: Vec<Item>) -> Result<(), Fault> {
        let mut state = self.shared.state.lock().clone();
        let mut batches = Vec::with_capacity(items.len());
        let mut responders = Vec::with_capacity(items.len());
        let mut indexes = Vec::with_capacity(items.len());
        for Item { log_id, content, responder } in items {
            state.log_id = Some(log_id);
            let commands = match content {
                Content::Blank => Vec::new(),
                Content::Encoded(bytes) => decode(bytes)?,
                Content::Commands(commands) => commands,
                Content::Membership(membership) => {
                    state.membership = StoredMembership::new(state.log_id, membership);
                    Vec::new()
                }
            };
            batches.push((log_id.committed_leader_id().term, commands));
            responders.push(responder);
            indexes.push(log_id.index());
        }
        let mut applied = self.write(&batches, &state)?;
        let mut rest = applied.outcomes.as_mut_slice();
        for (index, (_, commands)) in indexes.into_iter().zip(&batches) {
            let (outcomes, later) = rest.split_at_mut(commands.len());
            self.tokens.applied(index, commands, outcomes);
            rest = later;
        }
        let mut outcomes = applied.outcomes.into_iter();
        self.hub.publish(applied.events);
        self.shared.set(state);
        for ((_, commands), responder) in batches.iter().zip(responders) {
            let outcomes: Vec<Outcome> = outcomes.by_ref().take(commands.len()).collect();
            self.leases.applied(commands, &outcomes);
            if let Some(responder) = responder {
                responder.send(Applied { outcomes });
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        batches: &[(u64, Vec<Command>)],
        state: &AppliedState,
    ) -> Result<pintle_mvcc::Applied, Fault> {
        let entries: Vec<pintle_mvcc::Entry<'_>> = batches
            .iter()
            .map(|(term, commands)| pintle_mvcc::Entry { term: *term, commands })
            .collect();
        let began = std::time::Instant::now();
        let applied = self.mvcc.apply(&entries, encode(state)?);
        self.shared.commits.observe(began.elapsed());
        applied
    }

    fn install(&mut self, data: &SnapshotData) -> Result<(), Fault> {
        if let Some(dir) = data.dir() {
            self.mvcc.install(dir)?;
        }
        let applied = self.mvcc.applied_meta();
        let corrupt = |_| Fault::Corrupt { what: "applied metadata" };
        let state = AppliedState::from_bytes(applied.as_ref()).map_err(corrupt)?;
        self.hub.reset();
        self.leases.reset();
        self.tokens.clear();
        self.shared.installs.fetch_add(1, Ordering::Relaxed);
        self.shared.set(state);
        Ok(())
    }
}

fn encode(state: &AppliedState) -> Result<Bytes, Fault> {
    let bytes = codec::encode(state).map_err(|_| Fault::Corrupt { what: "applied metadata" })?;
    Ok(bytes.into())
}

/// A committed entry that does not decode is damage, not input: it was encoded by a member.
fn decode(bytes: Bytes) -> Result<Vec<Command>, Fault> {
    let batch = CommandBatch::decode(bytes);
    Ok(batch.map_err(|_| Fault::Corrupt { what: "log entry" })?.commands)
}
