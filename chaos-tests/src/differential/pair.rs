//! Both servers side by side: makes the same calls on both and compares what they answer.
//!
//! Calls are answered at once, and compared at once. Events of watchers come when they come: where
//! it matters that they have come (before a compaction, a cancel, a question for progress, and at the
//! end) the pair puts up a fence, an event of its own that etcd sends after all others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use pintle_proto::etcdserverpb as pb;
use pintle_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::time::{Instant, timeout};

use super::call::{Call, Frame, Put, Value, Watch};
use super::known;
use super::server::Server;
use super::side::Side;
use super::text;
use crate::Result;

const FENCE_KEY: &str = "fence";
/// Ids of the pair's own watchers: beyond those of the calls.
const FENCE_ID: i64 = 10_000;
/// Revisions below the first sequence, so that no relative one is negative.
const GROUND: i64 = 50;
/// etcd drops the question for progress while a watcher of the stream is behind: it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The first answer in which the two differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct Difference {
    pub at: usize,
    pub call: String,
    pub etcd: String,
    pub pintle: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, call, etcd, pintle } = self;
        write!(f, "call {at}: {call}\n  etcd:   {etcd}\n  pintle: {pintle}")
    }
}

impl Difference {
    /// Which call it is: a shorter sequence should fail in the same way.
    pub fn kind(&self) -> String {
        let word = self.call.split([' ', '(']).next().unwrap_or_default();
        word.to_owned()
    }
}

/// etcd, and ours.
#[derive(Debug)]
pub struct Pair {
    etcd: Side,
    pintle: Side,
    frame: Frame,
    /// The live watchers of the calls, and from where on they watch.
    alive: BTreeMap<i64, i64>,
    /// Watchers that a compaction has ended. etcd reports no progress of their stream any more.
    compacted: BTreeSet<i64>,
    /// Whether there may be a watcher that etcd has not brought up to date.
    behind: bool,
    fences: i64,
    /// How long the watchers of both may take to agree.
    pub patience: Duration,
    // Dropped after the clients.
    _servers: [Server; 2],
}

impl Pair {
    /// Starts both.
    pub async fn start() -> Result<Self> {
        let servers = [Server::etcd()?, Server::pintle().await?];
        let etcd = Side::connect(&servers[0]).await?;
        let pintle = Side::connect(&servers[1]).await?;
        Ok(Self {
            etcd,
            pintle,
            frame: Frame::default(),
            alive: BTreeMap::new(),
            compacted: BTreeSet::new(),
            behind: false,
            fences: 0,
            patience: super::PATIENCE,
            _servers: servers,
        })
    }

    /// Makes the calls on both, from an empty keyspace at a common revision on.
    pub async fn run(&mut self, calls: &[Call]) -> Result<Option<Difference>> {
        self.reset().await?;
        for (at, call) in calls.iter().enumerate() {
            if let Some(difference) = self.step(at, call).await? {
                return Ok(Some(difference));
            }
        }
        self.settle(calls.len()).await
    }

    async fn step(&mut self, at: usize, call: &Call) -> Result<Option<Difference>> {
        match call.inner() {
            Call::Watch(watch) => self.watch(watch).await,
            Call::CancelWatch { id } => self.cancel(at, *id).await,
            Call::WatchProgress => self.progress(at).await,
            Call::Compact { .. } => {
                if let Some(difference) = self.settle(at).await? {
                    return Ok(Some(difference));
                }
                self.compare(at, call).await
            }
            _ => self.compare(at, call).await,
        }
    }

    /// Makes one call on both and compares the answers.
    async fn compare(&mut self, at: usize, call: &Call) -> Result<Option<Difference>> {
        self.look(call).await?;
        let answers = timeout(super::PATIENCE, self.answers(call)).await;
        let (etcd, pintle) = answers.map_err(|_| format!("no answer to call {at}: {call:?}"))?;
        let Some(etcd) = etcd else { return Ok(None) };
        if let Call::Compact { revision, .. } = call.inner()
            && etcd.starts_with("CompactionResponse")
        {
            self.frame.floor = self.frame.revision(revision);
        }
        if etcd == pintle || known::is_known(call, &etcd, &pintle).is_some() {
            return Ok(None);
        }
        let call = text::short(format!("{call:?} at {:?}", self.frame));
        Ok(Some(Difference { at, call, etcd, pintle }))
    }

    /// What both answer; nothing of etcd's where it must not be asked.
    async fn answers(&mut self, call: &Call) -> (Option<String>, String) {
        if known::is_asked_first(call).is_some() {
            let pintle = self.pintle.call(call, &self.frame).await;
            if known::for_lack_of_rights(&pintle) {
                return (None, pintle);
            }
            return (Some(self.etcd.call(call, &self.frame).await), pintle);
        }
        let (etcd, pintle) =
            tokio::join!(self.etcd.call(call, &self.frame), self.pintle.call(call, &self.frame));
        (Some(etcd), pintle)
    }

    /// Brings the frame up to date.
    async fn look(&mut self, call: &Call) -> Result {
        let all = call.names_a_key();
        let request = pb::RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            keys_only: all,
            count_only: !all,
            ..Default::default()
        };
        let found = self.etcd.kv.range(request).await.map_err(|status| status.to_string())?;
        let found = found.into_inner();
        self.frame.now = found.header.unwrap_or_default().revision;
        let name = |kv: pintle_proto::mvccpb::KeyValue| {
            (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)
        };
        self.frame.modified = found.kvs.into_iter().map(name).collect();
        Ok(())
    }

    async fn send(&self, request: RequestUnion) -> Result {
        self.etcd.watching.send(request.clone()).await?;
        self.pintle.watching.send(request).await
    }

    async fn create(&self, request: pb::WatchCreateRequest) -> Result {
        let (etcd, pintle) = (&self.etcd.watching, &self.pintle.watching);
        let counts = (etcd.created() + 1, pintle.created() + 1);
        self.send(RequestUnion::CreateRequest(request)).await?;
        etcd.until_created(counts.0).await?;
        pintle.until_created(counts.1).await
    }

    async fn watch(&mut self, watch: &Watch) -> Result<Option<Difference>> {
        self.look(&Call::Watch(watch.clone())).await?;
        let request = watch.message(&self.frame);
        let start = request.start_revision;
        self.create(request).await?;
        let Some((id, refused)) = self.etcd.watching.newest() else { return Ok(None) };
        if !refused {
            self.behind |= start != 0 && start <= self.frame.now;
            if start != 0 && start < self.frame.floor {
                self.compacted.insert(id);
            } else {
                self.alive.insert(id, start);
            }
        }
        Ok(None)
    }

    async fn cancel(&mut self, at: usize, id: i64) -> Result<Option<Difference>> {
        let request = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id });
        if !self.compacted.contains(&id) && self.alive.remove(&id).is_none() {
            self.send(request).await?;
            return Ok(None);
        }
        if let Some(difference) = self.settle(at).await? {
            return Ok(Some(difference));
        }
        self.compacted.remove(&id);
        self.send_and_hear(request, id).await?;
        Ok(None)
    }

    /// Sends what is answered by one entry of watcher `id`.
    async fn send_and_hear(&self, request: RequestUnion, id: i64) -> Result {
        let (etcd, pintle) = (&self.etcd.watching, &self.pintle.watching);
        let told = (etcd.told(id) + 1, pintle.told(id) + 1);
        self.send(request).await?;
        etcd.until_told(id, told.0).await?;
        pintle.until_told(id, told.1).await
    }

    async fn progress(&mut self, at: usize) -> Result<Option<Difference>> {
        if let Some(difference) = self.settle(at).await? {
            return Ok(Some(difference));
        }
        let now = self.frame.now;
        // Where etcd 3.5 answers too early, or never.
        if !self.compacted.is_empty() || self.alive.values().any(|start| *start > now) {
            return Ok(None);
        }
        for side in [&self.etcd, &self.pintle] {
            let deadline = Instant::now() + super::PATIENCE;
            while !side.watching.progressed(now) {
                if Instant::now() > deadline {
                    return Err(format!("no progress to {now} at call {at}"));
                }
                let mut news = side.watching.news();
                news.mark_unchanged();
                let ask = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                side.watching.send(ask).await?;
                drop(timeout(ASK_AGAIN, news.changed()).await);
            }
        }
        Ok(None)
    }

    /// Waits until etcd has sent every event that there is, and ours the same ones.
    async fn settle(&mut self, at: usize) -> Result<Option<Difference>> {
        if std::mem::take(&mut self.behind) {
            // etcd brings all that are behind up to date in one pass, this one among them.
            let start = self.fence(at).await?;
            self.fences += 1;
            let id = FENCE_ID + self.fences;
            self.create(fence_watch(id, start)).await?;
            self.etcd.watching.until_told(id, 2).await?;
            self.pintle.watching.until_told(id, 2).await?;
            let cancel = pb::WatchCancelRequest { watch_id: id };
            self.send_and_hear(RequestUnion::CancelRequest(cancel), id).await?;
        }
        let told = self.etcd.watching.told(FENCE_ID) + 1;
        self.frame.now = self.fence(at).await?;
        self.etcd.watching.until_told(FENCE_ID, told).await?;
        self.agree(at).await
    }

    /// Waits until both have told the same.
    async fn agree(&self, at: usize) -> Result<Option<Difference>> {
        let (etcd, pintle) = (&self.etcd.watching, &self.pintle.watching);
        let (mut etcd_news, mut pintle_news) = (etcd.news(), pintle.news());
        let deadline = Instant::now() + self.patience;
        loop {
            etcd_news.mark_unchanged();
            pintle_news.mark_unchanged();
            let (left, right) = (etcd.entries(), pintle.entries());
            if left == right {
                return Ok(None);
            }
            let news = async {
                tokio::select! {
                    news = etcd_news.changed() => news,
                    news = pintle_news.changed() => news,
                }
            };
            match tokio::time::timeout_at(deadline, news).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(format!("at call {at} a watch stream has ended")),
                Err(_) => return Ok(first_difference(at, &left, &right)),
            }
        }
    }

    /// Writes the fence key on both; the revision.
    async fn fence(&mut self, at: usize) -> Result<i64> {
        let put = fence_put();
        let (etcd, pintle) = tokio::try_join!(self.etcd.put(&put), self.pintle.put(&put))?;
        if etcd != pintle {
            return Err(format!("at call {at} etcd is at {etcd} and pintle at {pintle}"));
        }
        self.frame.now = etcd;
        Ok(etcd)
    }

    async fn reset(&mut self) -> Result {
        let (etcd, pintle) = tokio::try_join!(self.etcd.clear_auth(), self.pintle.clear_auth())?;
        let target = etcd.max(pintle) + 2;
        self.etcd.advance_auth(etcd, target).await?;
        self.pintle.advance_auth(pintle, target).await?;
        let (etcd, pintle) = (clear(&mut self.etcd).await?, clear(&mut self.pintle).await?);
        let target = etcd.max(pintle).max(GROUND) + 1;
        advance(&mut self.etcd, etcd, target).await?;
        advance(&mut self.pintle, pintle, target).await?;
        for side in [&mut self.etcd, &mut self.pintle] {
            let revision = clear(side).await?;
            let request = pb::CompactionRequest { revision, physical: false };
            side.kv.compact(request).await.map_err(|status| status.to_string())?;
            self.frame = Frame { now: revision, floor: revision, modified: BTreeMap::new() };
            side.rewatch().await?;
        }
        self.alive.clear();
        self.compacted.clear();
        self.behind = false;
        self.fences = 0;
        self.create(fence_watch(FENCE_ID, 0)).await
    }
}

fn fence_put() -> Put {
    Put {
        key: FENCE_KEY.to_owned(),
        value: Value::Text(String::new()),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

fn fence_watch(watch_id: i64, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: FENCE_KEY.into(), start_revision, watch_id, ..Default::default() }
}

/// Removes every lease and key; the revision after that.
async fn clear(side: &mut Side) -> Result<i64> {
    for id in side.lease_ids().await? {
        side.call(&Call::LeaseRevoke { id }, &Frame::default()).await;
    }
    let request =
        pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let deleted = side.kv.delete_range(request).await.map_err(|status| status.to_string())?;
    Ok(deleted.into_inner().header.unwrap_or_default().revision)
}

async fn advance(side: &mut Side, from: i64, to: i64) -> Result {
    for _ in from..to {
        side.kv.put(fence_put().message()).await.map_err(|status| status.to_string())?;
    }
    Ok(())
}

fn first_difference(
    at: usize,
    etcd: &super::watching::Entries,
    pintle: &super::watching::Entries,
) -> Option<Difference> {
    let none = Vec::new();
    let ids: BTreeSet<i64> = etcd.keys().chain(pintle.keys()).copied().collect();
    ids.into_iter().find_map(|id| {
        let (left, right) = (etcd.get(&id).unwrap_or(&none), pintle.get(&id).unwrap_or(&none));
        let entry = (0..left.len().max(right.len())).find(|i| left.get(*i) != right.get(*i))?;
        let text = |entries: &[String]| {
            entries.get(entry).cloned().unwrap_or_else(|| "nothing".to_owned())
        };
        let call = format!("watcher {id}, entry {entry}, seen before this call");
        Some(Difference { at, call, etcd: text(left), pintle: text(right) })
    })
}
