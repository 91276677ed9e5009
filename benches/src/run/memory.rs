//! What keys cost in memory, and what happens when there is too little of it.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Context;
use super::fill::fill;
use super::load::{closed_loop, connections};
use super::recorder::mebibytes;
use super::sources::Pool;
use crate::results::{Metric, Sample};
use crate::system::Running;
use crate::workload::VALUE_BYTES;

/// How long the store is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone.
const AFTERMATH: Duration = Duration::from_secs(1);
/// The values of the database that is larger than memory.
const LARGE_VALUE_BYTES: usize = 4_096;
/// How many times larger.
const TIMES: u64 = 10;

pub(super) async fn population(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let keys = context.workload.keys;
    running.reset_peaks();
    let started = Instant::now();
    fill(running, keys, VALUE_BYTES).await?;
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE.min(2 * context.seconds())).await;
    let mut sample = Sample::default();
    sample.set(Metric::Throughput, keys as f64 / seconds);
    if let Some(usage) = running.usage() {
        sample.set(Metric::Memory, mebibytes(usage.memory_bytes));
        sample.set(Metric::PeakMemory, mebibytes(usage.peak_bytes));
    }
    Ok(sample)
}

pub(super) async fn beyond(context: &Context<'_>, running: &mut Running) -> anyhow::Result<Sample> {
    let bytes = context.plan.memory_limit * TIMES;
    let keys = usize::try_from(bytes)? / LARGE_VALUE_BYTES;
    let started = Instant::now();
    let sample = fill_and_read(context, running, keys).await;
    let after = started.elapsed();
    if sample.is_err() {
        // The connection may break before the process is seen to have ended.
        tokio::time::sleep(AFTERMATH).await;
    }
    match running.ended(0) {
        Some(status) => sample.with_context(|| {
            let limit = mebibytes(context.plan.memory_limit);
            format!("the process ended ({status}) after {after:.0?} with a limit of {limit} MiB")
        }),
        None => sample,
    }
}

async fn fill_and_read(
    context: &Context<'_>,
    running: &Running,
    keys: usize,
) -> anyhow::Result<Sample> {
    let started = Instant::now();
    fill(running, keys, LARGE_VALUE_BYTES).await?;
    let filled = started.elapsed().as_secs_f64();
    let connections = connections(running, 1).await?;
    let pool = Pool::ranges(keys, 1, false);
    let sources = (0..context.workload.clients).map(|_| pool.clone());
    let mut sample = closed_loop(context, running, &connections, sources).await?;
    let rate = mebibytes(context.plan.memory_limit * TIMES) / filled;
    sample.notes.push(format!("filled with {rate:.0} MiB/s; then random points are read"));
    Ok(sample)
}
