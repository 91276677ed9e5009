//! The threads that a member runs on.

use std::io;

use tokio::runtime::Runtime;

/// The threads of a member. Consensus has its own, so that whatever else runs in the process (an
/// apiserver that encodes a long list) cannot hold up a heartbeat.
#[derive(Debug, Default)]
pub(super) struct Threads(Option<Runtime>);

/// One thread answers peers while another waits for a lock or copies a large message.
const THREADS: usize = 2;

impl Threads {
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("store").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("only taken when dropped").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The usual drop waits, which async code may not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
