//! The threads that a member runs on.

use std::io;
use std::num::NonZero;

use tokio::runtime::Runtime;

/// The threads of a member. Consensus has its own, so that whatever else runs in the process (an
/// apiserver that encodes a long list) cannot hold up a heartbeat.
#[derive(Debug, Default)]
pub(super) struct Threads(Option<Runtime>);

/// Half of the processors: the log, the state and RocksDB have threads of their own. More of them than
/// there is work for hand it to and fro, and wake each other for it: of two where one is enough, a put or
/// a read costs 5 to 10 % more.
const THREADS_MAX: usize = 8;

impl Threads {
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime =
            builder.worker_threads(threads()).thread_name("store").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("only taken when dropped").handle()
    }
}

fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).clamp(1, THREADS_MAX)
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The usual drop waits, which async code may not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
