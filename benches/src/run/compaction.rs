//! Writes while the store is compacted.

use std::time::Duration;

use pintle_proto::etcdserverpb as pb;
use prost::Message;

use super::Context;
use super::load::{Load, connections};
use super::recorder::Window;
use super::sources::Pool;
use crate::client::{Call, Connection, encode};
use crate::results::{Metric, Sample};
use crate::system::Running;
use crate::workload::VALUE_BYTES;

/// Few keys, so that nearly everything is compacted.
const KEYS: usize = 10_000;
const COMPACTIONS: usize = 2;
/// Time between compactions, in times of the plan: 10 s with the default of 5 s.
const PERIOD: u32 = 2;

pub(super) async fn compaction(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let connections = connections(running, context.connections()).await?;
    let pool = Pool::puts(KEYS, VALUE_BYTES, "/registry/bench/");
    let load = Load::start(&connections, (0..context.workload.clients).map(|_| pool.clone()));
    let window = Window::open(running);
    load.recorder.borrow_mut().start();
    let mut compacted_at = Vec::new();
    for _ in 0..COMPACTIONS {
        tokio::time::sleep(PERIOD * context.seconds()).await;
        compacted_at.push(load.recorder.borrow().timeline().len());
        compact(&mut connections[0].clone()).await?;
    }
    tokio::time::sleep(PERIOD * context.seconds()).await;

    let done = load.recorder.borrow().done;
    let mut usage = Sample::default();
    window.close(running, done, &mut usage);
    let recorder = load.stop().await;
    let mut sample = recorder.borrow().sample()?;
    sample.figures.append(&mut usage.figures);
    let span = tenths(context.seconds());
    if let Some(ratio) = while_over_before(&sample.timeline, &compacted_at, span) {
        sample.set(Metric::CompactingOverBefore, ratio);
    }
    Ok(sample)
}

fn tenths(span: Duration) -> usize {
    usize::try_from(span.as_millis() / 100).unwrap_or(1).max(1)
}

/// Operations in the `span` after each compaction over those in the one before it.
fn while_over_before(timeline: &[u32], compacted_at: &[usize], span: usize) -> Option<f64> {
    let sum = |from: usize, to: usize| -> f64 {
        timeline
            .get(from..to.min(timeline.len()))
            .unwrap_or_default()
            .iter()
            .map(|n| f64::from(*n))
            .sum()
    };
    let before: f64 = compacted_at.iter().map(|at| sum(at.saturating_sub(span), *at)).sum();
    let meanwhile: f64 = compacted_at.iter().map(|at| sum(*at, at + span)).sum();
    (before > 0.0).then_some(meanwhile / before)
}

/// Compacts to where the store is now.
async fn compact(connection: &mut Connection) -> anyhow::Result<()> {
    let range = pb::RangeRequest { key: "now".into(), ..Default::default() };
    let answer = connection.unary(Call::Range, encode(&range)).await?;
    let header = pb::RangeResponse::decode(answer)?.header.unwrap_or_default();
    let request = pb::CompactionRequest { revision: header.revision, physical: false };
    connection.unary(Call::Compact, encode(&request)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dip_after_a_compaction_shows() {
        let timeline = [10, 10, 10, 5, 5, 10, 10, 10, 10, 10];
        assert_eq!(while_over_before(&timeline, &[3], 2), Some(0.5));
        assert_eq!(while_over_before(&timeline, &[3, 8], 2), Some(0.75));
        assert_eq!(while_over_before(&[], &[3], 2), None);
    }
}
