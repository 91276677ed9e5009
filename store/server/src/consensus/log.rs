//! The Raft log: files of its own, since it is only ever appended to, read in order and cut at its
//! ends ([`segments`]).
//!
//! Appends go into an in-memory [`Tail`](tail::Tail), where replication and apply read them back
//! without decoding, and to one writer thread, which gathers whatever has queued up during its
//! last fsync into the next one (group commit). Everything that reaches the disk (entries, votes,
//! truncation, purge) goes through that thread, in the order in which openraft asked for it.

mod deferred;
mod frame;
mod import;
pub(crate) mod offline;
mod places;
mod segments;
mod tail;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use self::deferred::Deferred;
use self::places::{Place, Places};
use self::segments::{Contents, Segments, Writing};
use self::tail::Tail;
use self::writer::Request;
use super::codec;
use super::convert::entry_from_bytes;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::MemoryLimit;
use crate::host::{Host, blocking};
use crate::metrics::{DISK_FIRST, Histogram};
use crate::simulation::is_simulated;

/// Requests to the writer that may wait. openraft itself bounds what it has in flight; when this
/// is full, its core waits, which is the back-pressure that a slow disk must cause.
const WRITER_QUEUE: usize = 4096;

/// One replication request carries at most this many bytes of entries (but at least one entry), so
/// that a slow follower is fed in messages that fit a heartbeat interval.
const REPLICATION_BYTES_MAX: usize = 2 << 20;

/// How much of the log stays in memory after it reached the disk: enough for followers that keep
/// up and for apply; one that is further behind reads from disk.
const TAIL_BYTES_MAX: usize = 16 << 20;

/// A leader sends an entry of at most this size to its followers first. To encode a larger one takes
/// longer than to wake the thread that writes it meanwhile.
const SMALL_BYTES_MAX: usize = 8 << 10;

/// Counts for the metrics endpoint.
#[derive(Debug)]
pub(crate) struct LogStats {
    /// Fsyncs of the log.
    pub(crate) fsyncs: Histogram,
    /// Bytes written since the start.
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    /// Where what is on disk lies.
    places: Mutex<Places>,
    tail: Mutex<Tail>,
    vote: Mutex<Option<Vote>>,
    committed: Mutex<Option<LogId>>,
    stats: LogStats,
}

/// The log, as openraft writes and reads it. Cloning gives another reader of the same log.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    writer: mpsc::Sender<Request>,
    /// The member whose log it is, and the way of what it appends as a leader.
    leading: Option<(u64, Deferred)>,
}

/// One entry, and a small one.
fn is_small(request: &Request) -> bool {
    let Request::Append { entries, .. } = request else { return false };
    match entries.as_slice() {
        [Entry { payload: EntryPayload::Normal(batch), .. }] => batch.0.len() <= SMALL_BYTES_MAX,
        _ => false,
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log writer has stopped")
}

impl LogStore {
    /// Opens the log under `dir` and starts its writer thread, which ends when the last clone is
    /// dropped. Without `sync`, what was acknowledged may be lost with the machine.
    pub(crate) fn open(
        dir: &Path,
        sync: bool,
        memory: MemoryLimit,
        host: Host,
    ) -> io::Result<Self> {
        import::import(dir)?;
        // A simulated disk sees from a file's length what was written.
        let writing = Writing { sync, allocate: !is_simulated() };
        let (segments, Contents { meta, places }) = Segments::open(dir, writing)?;
        let last = last(&places)?.max(meta.purged);
        let shared = Arc::new(Shared {
            places: Mutex::new(places),
            tail: Mutex::new(Tail::new(meta.purged, last, memory.share(TAIL_BYTES_MAX, 64))),
            vote: Mutex::new(meta.vote),
            committed: Mutex::new(meta.committed),
            stats: LogStats::default(),
        });
        let (writer, requests) = mpsc::channel(WRITER_QUEUE);
        writer::spawn(Arc::clone(&shared), segments, meta, requests, host)?;
        Ok(Self { shared, writer, leading: None })
    }

    /// The log of `member_id`, which sends a small entry to others before it writes it itself. Needs
    /// a runtime.
    pub(crate) fn of_member(mut self, member_id: u64) -> Self {
        let deferred = Deferred::new(self.writer.clone(), WRITER_QUEUE);
        self.leading = Some((member_id, deferred));
        self
    }

    /// Only openraft's core sends, and one request after the other, so their order stays.
    async fn send(&self, request: Request) -> io::Result<()> {
        if let Some((member_id, deferred)) = &self.leading {
            let leads = |vote: &Vote| vote.committed && vote.leader_id.voted_for == *member_id;
            let defers = is_small(&request) && self.shared.vote.lock().as_ref().is_some_and(leads);
            if defers || !deferred.is_idle() {
                return deferred.send(request).await;
            }
        }
        self.writer.send(request).await.map_err(|_| stopped())
    }

    pub(crate) fn stats(&self) -> &LogStats {
        &self.shared.stats
    }

    /// Bytes written since the start.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.shared.stats.bytes.load(Ordering::Relaxed)
    }

    /// Whether this log has never been used.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.vote.lock().is_none() && self.shared.tail.lock().last().is_none()
    }

    /// The newest entry, or the last one that was cut away; 0 on an empty log.
    pub(crate) fn last_index(&self) -> u64 {
        self.shared.tail.lock().last().map_or(0, |id| id.index())
    }

    /// The last entry that was cut away at the beginning.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.tail.lock().purged()
    }

    async fn ask(&self, request: impl FnOnce(writer::Done) -> Request) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(request(done)).await?;
        wait.await.map_err(|_| stopped())?
    }

    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (boundary, mut newer) = self.shared.tail.lock().read(start, end, bytes_max);
        if start >= boundary.min(end) {
            return Ok(newer);
        }
        let shared = Arc::clone(&self.shared);
        let read = move || shared.read_disk(start, boundary.min(end), bytes_max);
        let mut entries = blocking(read).await.map_err(io::Error::other)??;
        if bytes_max == usize::MAX {
            entries.append(&mut newer);
        }
        Ok(entries)
    }
}

/// Reads the entry at a place.
fn read(place: &Place) -> io::Result<Entry> {
    let length = usize::try_from(place.length).map_err(io::Error::other)?;
    entry_from_bytes(place.segment.read(place.offset, length)?)
}

fn last(places: &Places) -> io::Result<Option<LogId>> {
    places.last().map(|place| read(place).map(|entry| entry.log_id())).transpose()
}

impl Shared {
    fn read_disk(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut bytes = 0;
        let fits = |place: &&Place| {
            let fits = bytes < bytes_max;
            bytes = bytes.saturating_add(place.length as usize);
            fits
        };
        let places: Vec<Place> =
            self.places.lock().range(start, end).take_while(fits).cloned().collect();
        places.iter().map(read).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.shared.vote.lock())
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(start, end, REPLICATION_BYTES_MAX).await?;
        // The log may have been cut since openraft decided what to send. What is left is no
        // continuation of what the follower has.
        let continues = entries.first().is_some_and(|entry| entry.index() == start);
        Ok(if continues { entries } else { Vec::new() })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.shared.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.ask(|done| Request::Vote { vote, done }).await?;
        *self.shared.vote.lock() = Some(vote);
        Ok(())
    }

    /// Kept in memory until the next fsync takes it along: it only spares a replay its wait for a
    /// leader, so it is not worth an fsync of its own.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        *self.shared.committed.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(*self.shared.committed.lock())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.shared.tail.lock().append(&entries);
        self.send(Request::Append { entries, callback }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index() + 1);
        self.ask(|done| Request::Truncate { from, done }).await?;
        // Memory follows the disk: all writes before this one have reported by now, so none of
        // them can mark an entry of the same index that comes later as flushed.
        self.shared.tail.lock().truncate_after(last);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.shared.tail.lock().purge(upto);
        self.ask(|done| Request::Purge { upto, done }).await
    }
}

impl Default for LogStats {
    fn default() -> Self {
        Self { fsyncs: Histogram::new(DISK_FIRST), bytes: AtomicU64::new(0) }
    }
}

impl LogStats {
    fn record(&self, elapsed: std::time::Duration, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.fsyncs.observe(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use openraft::type_config::TypeConfigExt;
    use openraft::vote::RaftLeaderId;

    use super::super::types::{Batch, CommittedLeader};
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        let leader: CommittedLeader =
            openraft::impls::leader_id_std::LeaderId::new(term, 1).to_committed();
        LogId::new(leader, index)
    }

    fn entry(term: u64, index: u64, bytes: usize) -> Entry {
        Entry::new(id(term, index), EntryPayload::Normal(Batch(vec![7; bytes].into())))
    }

    async fn append(log: &mut LogStore, entries: Vec<Entry>) {
        let (sender, flushed) = TypeConfig::oneshot();
        log.append(entries, IOFlushed::signal(sender)).await.expect("accepted");
        flushed.await.expect("answered").expect("on disk");
    }

    async fn indexes(log: &mut LogStore, range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
        let entries = log.try_get_log_entries(range).await.expect("readable");
        let place = |entry: &Entry| (entry.log_id().committed_leader_id().term, entry.index());
        entries.iter().map(place).collect()
    }

    /// Opens again once the writer thread has let go of the files.
    fn reopen(dir: &Path) -> LogStore {
        loop {
            match LogStore::open(dir, true, MemoryLimit::default(), Host::Machine) {
                Ok(log) => return log,
                Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
            }
            std::thread::yield_now();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_flushed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log =
            LogStore::open(dir.path(), true, MemoryLimit::default(), Host::Machine).expect("opens");
        let vote = Vote::new_committed(3, 1);
        log.save_vote(&vote).await.expect("saved");
        append(&mut log, (1..=9).map(|index| entry(1, index, 10)).collect()).await;
        log.truncate_after(Some(id(1, 6))).await.expect("cut");
        append(&mut log, vec![entry(3, 7, 10)]).await;
        log.purge(id(1, 2)).await.expect("purged");
        log.save_committed(Some(id(3, 7))).await.expect("noted");
        drop(log);
        let mut log = reopen(dir.path());
        assert_eq!(log.read_vote().await.expect("readable"), Some(vote));
        assert_eq!(log.read_committed().await.expect("readable"), Some(id(3, 7)));
        let state = log.get_log_state().await.expect("readable");
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 2)), Some(id(3, 7))));
        assert_eq!(indexes(&mut log, 0..100).await, [(1, 3), (1, 4), (1, 5), (1, 6), (3, 7)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_that_left_memory_are_read_from_disk() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log =
            LogStore::open(dir.path(), true, MemoryLimit::default(), Host::Machine).expect("opens");
        for index in 1..=40 {
            append(&mut log, vec![entry(1, index, 1 << 20)]).await;
        }
        let (first_in_memory, _) = log.shared.tail.lock().read(1, 41, usize::MAX);
        assert!(first_in_memory > 1, "the test must have pushed some out");
        let all: Vec<(u64, u64)> = (1..=40).map(|index| (1, index)).collect();
        assert_eq!(indexes(&mut log, 1..41).await, all);
        let some = log.limited_get_log_entries(1, 41).await.expect("readable");
        assert!(!some.is_empty() && some.len() < 40, "a piece, not everything");
        assert_eq!(some[0].index(), 1);

        log.purge(id(1, 3)).await.expect("purged");
        assert_eq!(log.purged(), Some(id(1, 3)));
        let cut = log.limited_get_log_entries(2, 41).await.expect("readable");
        assert!(cut.is_empty(), "entry 4 does not follow entry 1");
        let left = log.limited_get_log_entries(4, 41).await.expect("readable");
        assert_eq!(left[0].index(), 4);
    }
}
