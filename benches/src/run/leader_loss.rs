//! How long nobody can write when the leader goes.
//!
//! Puts are sent at a steady rate to all members, whether earlier ones have been answered or not, so
//! that one that hangs hides nothing. The gap is the longest time between two acknowledgements.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use pintle_proto::etcdserverpb as pb;

use super::Context;
use crate::client::{Call, Connection, Failure, encode};
use crate::results::{Metric, Sample};
use crate::statistics::spread;
use crate::system::Running;

/// Between two puts.
const PACE: Duration = Duration::from_millis(2);
const BEFORE: Duration = Duration::from_secs(1);
/// Writes go on for so long after they have come back.
const STEADY: Duration = Duration::from_secs(1);
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// A process that was asked to stop has done so by then.
const STOP_MAX: Duration = Duration::from_secs(30);

/// What became of the puts.
#[derive(Default)]
struct Outcome {
    acknowledged: Vec<Instant>,
    failed: Vec<Failure>,
}

type Shared = Rc<RefCell<Outcome>>;

pub(super) async fn losses(
    context: &Context<'_>,
    running: &mut Running,
    clean: bool,
) -> anyhow::Result<Sample> {
    let (mut gaps, mut failed) = (Vec::new(), 0);
    let mut sample = Sample::default();
    for _ in 0..context.plan.leader_losses.max(1) {
        running.ready().await;
        let leader = running.leader().await?;
        let outcome = loss(running, leader, clean).await?;
        let outcome = outcome.borrow();
        gaps.push(longest_gap(&outcome.acknowledged).as_secs_f64() * 1e3);
        failed += outcome.failed.len();
        if clean && let Some(first) = outcome.failed.first() {
            sample.notes.push(format!("failed requests, the first with: {first}"));
        }
        running.restart(leader)?;
    }
    running.ready().await;
    sample.notes.truncate(1);
    let gap = spread(gaps.iter().copied()).context("no gaps")?;
    sample.set(Metric::Gap, gap.median);
    sample.set(Metric::WorstGap, gap.max);
    if clean {
        sample.set(Metric::FailedRequests, failed as f64 / gaps.len() as f64);
    }
    Ok(sample)
}

async fn loss(running: &mut Running, leader: usize, clean: bool) -> anyhow::Result<Shared> {
    let outcome = Shared::default();
    let mut connections = Vec::new();
    for endpoint in running.endpoints() {
        connections.push(Some(Connection::open(endpoint).await?));
    }
    let writer = tokio::task::spawn_local(write(connections, Rc::clone(&outcome)));
    tokio::time::sleep(BEFORE).await;
    if clean {
        running.terminate(leader)?;
        wait_until_ended(running, leader).await?;
    } else {
        running.kill(leader)?;
    }
    let recovered = wait_until_steady(&outcome, Instant::now()).await;
    writer.abort();
    recovered.map(|()| outcome)
}

async fn wait_until_ended(running: &mut Running, member: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    while running.ended(member).is_none() {
        if started.elapsed() > STOP_MAX {
            bail!("the leader did not stop within {STOP_MAX:?}");
        }
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// Acknowledgements have come for a while after `since`.
async fn wait_until_steady(outcome: &Shared, since: Instant) -> anyhow::Result<()> {
    loop {
        let first = {
            let outcome = outcome.borrow();
            let later = outcome.acknowledged.partition_point(|at| *at <= since);
            outcome.acknowledged.get(later).copied()
        };
        if first.is_some_and(|first| first.elapsed() > STEADY) {
            return Ok(());
        }
        if since.elapsed() > RECOVERY_MAX {
            bail!("no write was acknowledged within {RECOVERY_MAX:?}");
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn write(mut connections: Vec<Option<Connection>>, outcome: Shared) {
    let put = pb::PutRequest {
        key: Bytes::from_static(b"/registry/leader-loss"),
        value: vec![b'v'; 64].into(),
        ..Default::default()
    };
    let put = encode(&put);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let lost = Rc::new(RefCell::new(Vec::new()));
    let mut turn = 0;
    loop {
        pace.tick().await;
        // Whoever could not be reached is asked no more, as by any client with several endpoints.
        lost.borrow_mut().drain(..).for_each(|member: usize| connections[member] = None);
        turn += 1;
        let member = turn % connections.len();
        let Some(connection) = &connections[member] else { continue };
        let mut connection = connection.clone();
        let (put, outcome, lost) = (put.clone(), Rc::clone(&outcome), Rc::clone(&lost));
        tokio::task::spawn_local(async move {
            match connection.unary(Call::Put, put).await {
                Ok(_) => outcome.borrow_mut().acknowledged.push(Instant::now()),
                Err(failure) if !failure.sent => lost.borrow_mut().push(member),
                Err(failure) => outcome.borrow_mut().failed.push(failure),
            }
        });
    }
}

fn longest_gap(acknowledged: &[Instant]) -> Duration {
    let gaps = acknowledged.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_the_longest_silence() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(longest_gap(&[at(0), at(5), at(405), at(410)]), Duration::from_millis(400));
        assert_eq!(longest_gap(&[at(0)]), Duration::ZERO);
    }
}
