//! The thread that writes what has come together, so that apply goes on meanwhile; and what is left
//! when nothing has come for a while, so that the next reader of a range finds it written.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Fault;
use crate::database::Database;
use crate::pending::{Asker, Urgency};

/// What has waited so long while nothing came is written.
const QUIET: Duration = Duration::from_millis(500);

/// Ends, and is waited for, when it is dropped. Without a thread the writer does its work.
#[derive(Debug)]
pub(crate) struct Settler {
    /// Databases to look at. Full while it has not got to the one before.
    requests: Option<SyncSender<Weak<Database>>>,
    thread: Option<JoinHandle<()>>,
}

impl Settler {
    pub(crate) fn start(has_thread: bool) -> Result<Self, Fault> {
        if !has_thread {
            return Ok(Self { requests: None, thread: None });
        }
        let (requests, queue) = sync_channel(1);
        let thread = std::thread::Builder::new().name("mvcc-settle".to_owned());
        let thread = thread.spawn(move || run(&queue));
        let thread = thread.map_err(Fault::Thread)?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Whether a batch need not wait for a write.
    pub(crate) fn is_free(&self, database: &Database) -> bool {
        !self.must_wait(database.urgency())
    }

    fn must_wait(&self, urgency: Urgency) -> bool {
        match urgency {
            Urgency::Settled | Urgency::CanWait => false,
            Urgency::Due => self.requests.is_none(),
            Urgency::Overdue => true,
        }
    }

    /// Before a batch is made: has written what should be. Whether everything is in RocksDB.
    pub(crate) fn look(&self, database: &Arc<Database>) -> Result<bool, Fault> {
        let urgency = database.urgency();
        if self.must_wait(urgency) {
            database.settle(Asker::Writer)?;
            return Ok(true);
        }
        // Also told when the first comes after a while: it looks for what stays.
        if let (Urgency::Settled | Urgency::Due, Some(requests)) = (urgency, &self.requests) {
            // One that waits already will take this along.
            drop(requests.try_send(Arc::downgrade(database)));
        }
        Ok(urgency == Urgency::Settled)
    }
}

fn run(requests: &Receiver<Weak<Database>>) {
    while let Ok(mut database) = requests.recv() {
        let mut seen = None;
        // Until everything is written, or the database is gone.
        while let Some(current) = database.upgrade() {
            let revision = current.published().revision();
            let write = match current.urgency() {
                Urgency::Settled if seen == Some(revision) => break,
                Urgency::Due | Urgency::Overdue => true,
                Urgency::CanWait => seen == Some(revision),
                Urgency::Settled => false,
            };
            if write && let Err(fault) = current.settle(Asker::Writer) {
                // The next apply is told, too.
                tracing::error!(%fault, "what was applied could not be written");
                break;
            }
            drop(current);
            seen = Some(revision);
            match requests.recv_timeout(QUIET) {
                Ok(next) => (database, seen) = (next, None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes what was applied has panicked");
        }
    }
}
