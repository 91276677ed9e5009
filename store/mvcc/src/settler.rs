//! The thread that writes what has come together, so that apply goes on meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::Fault;
use crate::database::Database;
use crate::pending::{Asker, Urgency};

/// Ends, and is waited for, when it is dropped. Without a thread the writer does its work.
#[derive(Debug)]
pub(crate) struct Settler {
    /// Full while a write waits to be made.
    requests: Option<SyncSender<Arc<Database>>>,
    thread: Option<JoinHandle<()>>,
}

impl Settler {
    pub(crate) fn start(has_thread: bool) -> Result<Self, Fault> {
        if !has_thread {
            return Ok(Self { requests: None, thread: None });
        }
        let (requests, queue) = sync_channel::<Arc<Database>>(1);
        let run = move || {
            for database in queue {
                if let Err(fault) = database.settle(Asker::Writer) {
                    // The next apply is told, too.
                    tracing::error!(%fault, "what was applied could not be written");
                }
            }
        };
        let thread = std::thread::Builder::new().name("mvcc-settle".to_owned()).spawn(run);
        let thread = thread.map_err(Fault::Thread)?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Before a batch is made: has written what should be. Whether everything is in RocksDB.
    pub(crate) fn look(&self, database: &Arc<Database>) -> Result<bool, Fault> {
        match database.urgency() {
            Urgency::Settled => return Ok(true),
            Urgency::CanWait => {}
            Urgency::Due if let Some(requests) = &self.requests => {
                // One that waits already will take this along.
                drop(requests.try_send(Arc::clone(database)));
            }
            Urgency::Due | Urgency::Overdue => {
                database.settle(Asker::Writer)?;
                return Ok(true);
            }
        }
        Ok(false)
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
