//! The thread that owns the log's disk: one synced write for everything that has queued up.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::super::types::{Entry, LogId, TypeConfig, Vote};
use super::Shared;
use super::frame::{Frame, Span};
use super::places::Place;
use super::segments::{Meta, Segments};
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

/// What a write changes, once it is on disk.
enum Change {
    Entry { index: u64, span: Span },
    Vote(Vote),
    Committed(LogId),
    Truncate(u64),
    Purge(LogId),
}

pub(super) fn spawn(
    shared: Arc<Shared>,
    segments: Segments,
    meta: Meta,
    requests: mpsc::Receiver<Request>,
    host: Host,
) -> io::Result<()> {
    let mut writer = Writer { shared, segments, meta, requests, host };
    own("raft-log", async move { writer.run().await })
}

struct Writer {
    shared: Arc<Shared>,
    segments: Segments,
    /// What is on disk.
    meta: Meta,
    requests: mpsc::Receiver<Request>,
    host: Host,
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
                Ok((frame, changes)) => self.write(frame, changes).await,
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

    fn gather(
        &mut self,
        first: Request,
        waiters: &mut Vec<Waiter>,
    ) -> io::Result<(Frame, Vec<Change>)> {
        let (mut frame, mut changes) = (Frame::new(), Vec::new());
        let mut request = Some(first);
        while let Some(one) = request {
            add(one, &mut frame, &mut changes, waiters)?;
            if frame.len() >= WRITE_BYTES_MAX {
                break;
            }
            request = self.requests.try_recv().ok();
        }
        let committed = *self.shared.committed.lock();
        if committed != self.meta.committed
            && let Some(id) = committed
        {
            frame.committed(&id)?;
            changes.push(Change::Committed(id));
        }
        Ok((frame, changes))
    }

    async fn write(&mut self, mut frame: Frame, changes: Vec<Change>) -> io::Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        let bytes = frame.len();
        let started = Instant::now();
        let mut written = None;
        let write = || {
            written = Some(self.segments.write(&mut frame, &self.meta)?);
            Ok(())
        };
        self.host.sync(write).await?;
        self.shared.stats.record(started.elapsed(), bytes);
        let Some((segment, offset)) = written else { return Ok(()) };
        let mut next = None;
        let mut purged = false;
        {
            let mut places = self.shared.places.lock();
            for change in changes {
                match change {
                    Change::Entry { index, span } => {
                        let offset = offset + span.start as u64;
                        let length = u32::try_from(span.length).map_err(io::Error::other)?;
                        let place = Place { segment: Arc::clone(&segment), offset, length };
                        places.push(index, place).map_err(io::Error::other)?;
                        next = Some(index + 1);
                    }
                    Change::Vote(vote) => self.meta.vote = Some(vote),
                    Change::Committed(id) => self.meta.committed = Some(id),
                    Change::Truncate(from) => {
                        places.truncate(from);
                        next = next.map(|next| next.min(from));
                    }
                    Change::Purge(upto) => {
                        self.meta.purged = self.meta.purged.max(Some(upto));
                        places.purge(upto.index());
                        purged = true;
                    }
                }
            }
        }
        drop(segment);
        if let Some(next) = next {
            self.shared.tail.lock().flushed(next);
        }
        if purged && let Err(error) = self.segments.remove_unused() {
            tracing::warn!(%error, "a file of the log was not removed; the next cut tries again");
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
    fn write_committed(&mut self) {
        let Some(id) = *self.shared.committed.lock() else { return };
        let mut frame = Frame::new();
        let written = frame
            .committed(&id)
            .and_then(|()| self.segments.write(&mut frame, &self.meta).map(drop));
        if let Err(error) = written {
            tracing::warn!(%error, "the commit index was not saved; the next start waits for a leader");
        }
    }
}

fn add(
    request: Request,
    frame: &mut Frame,
    changes: &mut Vec<Change>,
    waiters: &mut Vec<Waiter>,
) -> io::Result<()> {
    match request {
        Request::Append { entries, callback } => {
            waiters.push(Waiter::Flushed(callback));
            for entry in &entries {
                let span = frame.entry(entry)?;
                changes.push(Change::Entry { index: entry.index(), span });
            }
        }
        Request::Vote { vote, done } => {
            waiters.push(Waiter::Done(done));
            frame.vote(&vote)?;
            changes.push(Change::Vote(vote));
        }
        Request::Truncate { from, done } => {
            waiters.push(Waiter::Done(done));
            frame.truncate(from)?;
            changes.push(Change::Truncate(from));
        }
        Request::Purge { upto, done } => {
            waiters.push(Waiter::Done(done));
            frame.purged(&upto)?;
            changes.push(Change::Purge(upto));
        }
    }
    Ok(())
}
