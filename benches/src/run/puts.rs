//! Writes.

use super::Context;
use super::load::{closed_loop, connections};
use super::sources::{Pool, Updates};
use crate::floor::Floor;
use crate::results::{Metric, Sample};
use crate::system::Running;
use crate::workload::VALUE_BYTES;

/// Keys that puts are spread over.
const KEYS: usize = 100_000;
/// Keys of each client that updates.
const OWN_KEYS: usize = 64;

pub(super) async fn puts(
    context: &Context<'_>,
    running: &Running,
    value_bytes: usize,
) -> anyhow::Result<Sample> {
    let clients = context.workload.clients;
    let connections = if clients == 1 {
        vec![running.connect(running.leader().await?).await?]
    } else {
        connections(running, context.connections()).await?
    };
    let pool = Pool::puts(KEYS, value_bytes, "/registry/bench/");
    let sources = (0..clients).map(|_| pool.clone());
    if clients > 1 {
        return closed_loop(context, running, &connections, sources).await;
    }
    // A disk is not as fast in one minute as in the next, so the floor is that of this round.
    let before = Floor::measure(&context.plan.dir)?.total_us();
    let mut sample = closed_loop(context, running, &connections, sources).await?;
    let floor = f64::midpoint(before, Floor::measure(&context.plan.dir)?.total_us());
    sample.set(Metric::Floor, floor);
    if let Some(p50) = sample.figures.get(&Metric::P50).copied() {
        sample.set(Metric::OverFloor, p50 / floor);
    }
    Ok(sample)
}

pub(super) async fn updates(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let connections = connections(running, context.connections()).await?;
    let sources = (0..context.workload.clients).map(|i| Updates::new(i, OWN_KEYS, VALUE_BYTES));
    closed_loop(context, running, &connections, sources).await
}
