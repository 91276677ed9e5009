//! Where the processors' time goes: a timer of the process ticks a hundred times in a second of it, and
//! whichever thread runs then notes its stack.
//!
//! The table of stacks takes 70 MiB from the first profile to the end of the process, and twice that at the end of
//! each, until the allocator gives the old one back.

use std::time::Duration;

use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder, Report};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{JoinError, spawn_blocking};

use super::pack;

/// Samples in a second, as in Go.
const FREQUENCY: i32 = 100;
/// A stack is not walked from within these: the unwinder itself, the loader and the locks that it may
/// need, and the kernel's page, which older systems describe wrongly.
const NOT_WALKED: [&str; 4] = ["libgcc", "ld-linux", "pthread", "vdso"];

/// One at a time: there is one such timer.
static SAMPLING: Semaphore = Semaphore::const_new(1);

#[derive(Debug, thiserror::Error)]
pub(super) enum CpuError {
    /// In Go's words.
    #[error("cpu profiling already in use")]
    InUse,
    #[error(transparent)]
    Sampler(#[from] pprof::Error),
    #[error(transparent)]
    Crash(#[from] JoinError),
}

/// The profile of the time from now on. Whoever does not wait for it any more ends it.
pub(super) async fn sample(length: Duration) -> Result<Vec<u8>, CpuError> {
    let permit = SAMPLING.try_acquire().map_err(|_| CpuError::InUse)?;
    let sampler = spawn_blocking(|| Sampler::start(permit)).await??;
    tokio::time::sleep(length).await;
    Ok(spawn_blocking(|| sampler.finish()).await??)
}

/// Samples while it lives.
struct Sampler {
    guard: ProfilerGuard<'static>,
    _permit: SemaphorePermit<'static>,
}

impl Sampler {
    fn start(permit: SemaphorePermit<'static>) -> Result<Self, pprof::Error> {
        let builder = ProfilerGuardBuilder::default().frequency(FREQUENCY);
        Ok(Self { guard: builder.blocklist(&NOT_WALKED).build()?, _permit: permit })
    }

    /// Stops the timer first: finding the names takes much longer than the walks.
    fn finish(self) -> Result<Vec<u8>, pprof::Error> {
        let Self { guard, _permit } = self;
        let samples = guard.report().build_unresolved()?;
        drop(guard);
        let named = samples.data.into_iter().map(|(stack, count)| (Frames::from(stack), count));
        let report = Report { data: named.collect(), timing: samples.timing };
        // Tens of megabytes.
        backtrace::clear_symbol_cache();
        Ok(pack(&report.pprof()?))
    }
}
