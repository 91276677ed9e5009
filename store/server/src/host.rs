//! What a member runs on: the machine, or a simulation of one.
//!
//! A simulation is one process with one thread, so that a seed replays: what is a thread on the
//! machine is a task there, and work that blocks is done on the spot. It also stands between a
//! member and its peers, and between the log and the disk. Everything else is the same code.

use std::io;

use tokio::task::JoinError;

#[cfg(feature = "simulation")]
use crate::simulation::Simulated;
use crate::simulation::is_simulated;

/// Stands under one member.
#[derive(Clone, Debug, Default)]
pub(crate) enum Host {
    #[default]
    Machine,
    #[cfg(feature = "simulation")]
    Simulated(Simulated),
}

impl Host {
    /// One synced write of the log: `write` hands it to the database.
    pub(crate) async fn sync(&self, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Machine => write(),
            #[cfg(feature = "simulation")]
            Self::Simulated(simulated) => {
                write()?;
                simulated.disk.sync().await
            }
        }
    }
}

/// Does work that blocks where it holds up nobody else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Does work that is soon done, but not at once, in a task of its own: a connection goes on meanwhile.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_simulated() {
        return Ok(work());
    }
    tokio::spawn(async move { work() }).await
}

/// Runs the one owner of some state: on a thread of its own, because it blocks.
pub(crate) fn own(name: &str, owner: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    if is_simulated() {
        tokio::spawn(tokio::task::unconstrained(owner));
        return Ok(());
    }
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || futures::executor::block_on(owner)).map(drop)
}
