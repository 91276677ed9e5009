//! The thread that owns the log's disk: one synced write for everything that has queued up.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use super::super::convert::entry_to_bytes;
use super::super::types::{Entry, LogId, TypeConfig, Vote};
use super::{KEY_COMMITTED, KEY_PURGED, KEY_VOTE, Shared, codec, log_cf, meta_cf};
use crate::host::{Host, own};
#[cfg(feature = "simulation")]
use crate::simulation::{Broken, is_broken};

/// One synced write gathers up to this many bytes; more would delay the first of them.
const WRITE_BYTES_MAX: usize = 8 << 20;

pub(super) type Done = oneshot::Sender<io::Result<()>>;

/// What openraft asked of the disk.
pub(super) enum Request {
    Append { entries: Vec<Entry>, callback: IOFlushed<TypeConfig> },
    Vote { vote: Vote, done: Done },
    Truncate { from: u64, done: Done },
    Purge { upto: LogId, done: Done },
}

/// Whom to tell once the write is on disk.
enum Waiter {
    Flushed(IOFlushed<TypeConfig>),
    Done(Done),
}

pub(super) fn spawn(
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    host: Host,
) -> io::Result<()> {
    let mut writer = Writer { shared, requests, host, next: None, committed: None };
    own("raft-log", async move { writer.run().await })
}

struct Writer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    host: Host,
    /// The index after the last entry of the batch at hand, if it has entries.
    next: Option<u64>,
    /// The commit index that is on disk.
    committed: Option<LogId>,
}

impl Writer {
    async fn run(&mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut waiters = Vec::new();
            let gathered = self.gather(first, &mut waiters);
            #[cfg(feature = "simulation")]
            if is_broken(Broken::AcknowledgeBeforeFsync) {
                self.tell(std::mem::take(&mut waiters), &Ok(()));
            }
            let result = match gathered {
                Ok(batch) => self.write(batch).await,
                Err(error) => Err(error),
            };
            self.tell(waiters, &result);
            if let Err(error) = result {
                // What is on disk is unknown now: nothing more may be acknowledged. The closed
                // queue makes every further operation fail, which stops consensus.
                tracing::error!(%error, "the raft log cannot be written; stopping");
                return;
            }
        }
        self.write_committed();
    }

    fn gather(&mut self, first: Request, waiters: &mut Vec<Waiter>) -> io::Result<WriteBatch> {
        let mut batch = WriteBatch::default();
        self.next = None;
        let mut request = Some(first);
        while let Some(one) = request {
            self.add(one, &mut batch, waiters)?;
            if batch.size_in_bytes() >= WRITE_BYTES_MAX {
                break;
            }
            request = self.requests.try_recv().ok();
        }
        let committed = *self.shared.committed.lock();
        if committed != self.committed
            && let Some(id) = committed
        {
            batch.put_cf(meta_cf(&self.shared.db), KEY_COMMITTED, codec::encode(&id)?);
        }
        self.committed = committed;
        Ok(batch)
    }

    fn add(
        &mut self,
        request: Request,
        batch: &mut WriteBatch,
        waiters: &mut Vec<Waiter>,
    ) -> io::Result<()> {
        let db = &self.shared.db;
        match request {
            Request::Append { entries, callback } => {
                waiters.push(Waiter::Flushed(callback));
                for entry in &entries {
                    batch.put_cf(log_cf(db), entry.index().to_be_bytes(), entry_to_bytes(entry));
                    self.next = Some(entry.index() + 1);
                }
            }
            Request::Vote { vote, done } => {
                waiters.push(Waiter::Done(done));
                batch.put_cf(meta_cf(db), KEY_VOTE, codec::encode(&vote)?);
            }
            Request::Truncate { from, done } => {
                waiters.push(Waiter::Done(done));
                let (from_key, end) = (from.to_be_bytes(), u64::MAX.to_be_bytes());
                batch.delete_range_cf(log_cf(db), from_key, end);
                self.next = self.next.map(|next| next.min(from));
            }
            Request::Purge { upto, done } => {
                waiters.push(Waiter::Done(done));
                batch.put_cf(meta_cf(db), KEY_PURGED, codec::encode(&upto)?);
                let end = (upto.index() + 1).to_be_bytes();
                batch.delete_range_cf(log_cf(db), 0_u64.to_be_bytes(), end);
            }
        }
        Ok(())
    }

    async fn write(&self, batch: WriteBatch) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(self.shared.sync);
        let bytes = batch.size_in_bytes();
        let started = Instant::now();
        let write = || self.shared.db.write_opt(batch, &options).map_err(io::Error::other);
        self.host.sync(write).await?;
        self.shared.stats.record(started.elapsed(), bytes);
        if let Some(next) = self.next {
            self.shared.tail.lock().flushed(next);
        }
        Ok(())
    }

    fn tell(&self, waiters: Vec<Waiter>, result: &io::Result<()>) {
        for waiter in waiters {
            let result = match result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            match waiter {
                Waiter::Flushed(callback) => callback.io_completed(result),
                // The asker may be gone when the node shuts down.
                Waiter::Done(done) => drop(done.send(result)),
            }
        }
    }

    /// A clean stop leaves the newest commit index, so that the next start replays without a leader.
    fn write_committed(&self) {
        let Some(id) = *self.shared.committed.lock() else { return };
        let written = codec::encode(&id).and_then(|bytes| {
            let db = &self.shared.db;
            db.put_cf(meta_cf(db), KEY_COMMITTED, bytes).map_err(io::Error::other)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the commit index was not saved; the next start waits for a leader");
        }
    }
}
