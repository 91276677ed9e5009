//! Watchers that keep up: one prefix for all, or a key for each.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use pintle_proto::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Context;
use super::load::connections;
use super::recorder::Window;
use super::sources::key;
use super::watchers::{Arrivals, Watch, Watchers};
use crate::client::{Call, Connection, encode};
use crate::results::{Metric, Sample};
use crate::system::Running;
use crate::workload::VALUE_BYTES;

const PREFIX: &str = "/registry/fan-out/";
const PREFIX_END: &str = "/registry/fan-out0";
/// Who puts while the throughput of the watchers is measured.
const WRITERS: usize = 10;
/// Puts that the watchers together may be behind: more would measure a backlog.
const PUTS_AHEAD: u64 = 50;
/// Pace of the puts whose delay is measured: low enough that nobody queues.
const FAN_OUT_PUTS_PER_SECOND: f64 = 20.0;
const OWN_KEY_PUTS_PER_SECOND: f64 = 500.0;
/// How long the memory of a store is left to settle.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn fan_out(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let watch = Watch { key: PREFIX.into(), range_end: PREFIX_END.into(), start_revision: 0 };
    let watchers = context.workload.clients;
    let all = Watchers::start(running, vec![watch; watchers]).await?;
    let arrivals = &all.arrivals;
    let connections = connections(running, WRITERS).await?;

    let window = Window::open(running);
    let puts = put_as_watched(context, &connections, arrivals, watchers as u64).await?;
    arrivals.reach(puts * watchers as u64).await?;
    let mut usage = Sample::default();
    window.close(running, arrivals.events.get(), &mut usage);

    let keys = |_: &mut StdRng| Bytes::from_static(b"/registry/fan-out/timed");
    let before = arrivals.events.get();
    let puts =
        put_at_pace(context, &connections[0], arrivals, FAN_OUT_PUTS_PER_SECOND, keys).await?;
    arrivals.reach(before + puts * watchers as u64).await?;
    let mut sample = arrivals.take_delays()?.sample()?;
    sample.figures.append(&mut usage.figures);
    Ok(sample)
}

/// Puts as fast as the watchers follow; returns how many.
async fn put_as_watched(
    context: &Context<'_>,
    connections: &[Connection],
    arrivals: &Rc<Arrivals>,
    watchers: u64,
) -> anyhow::Result<u64> {
    let until = Instant::now() + context.seconds();
    let puts = Cell::new(0);
    let writers = connections.iter().enumerate().map(|(writer, connection)| {
        let mut connection = connection.clone();
        let put = pb::PutRequest {
            key: format!("{PREFIX}{writer:04}").into(),
            value: vec![b'v'; VALUE_BYTES].into(),
            ..Default::default()
        };
        let put = encode(&put);
        let puts = &puts;
        async move {
            while Instant::now() < until {
                arrivals
                    .reach((puts.get() * watchers).saturating_sub(PUTS_AHEAD * watchers))
                    .await?;
                puts.set(puts.get() + 1);
                connection.unary(Call::Put, put.clone()).await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(writers).await?;
    Ok(puts.get())
}

/// Puts at a steady pace and times their events; returns how many puts.
async fn put_at_pace(
    context: &Context<'_>,
    connection: &Connection,
    arrivals: &Rc<Arrivals>,
    per_second: f64,
    mut next_key: impl FnMut(&mut StdRng) -> Bytes,
) -> anyhow::Result<u64> {
    arrivals.time_delays();
    let mut random = StdRng::seed_from_u64(1);
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
    let until = Instant::now() + context.seconds();
    let mut answers = tokio::task::JoinSet::new();
    let mut puts = 0;
    while Instant::now() < until {
        pace.tick().await;
        let key = next_key(&mut random);
        let value = arrivals.timed_value(VALUE_BYTES);
        let put = encode(&pb::PutRequest { key, value, ..Default::default() });
        let mut connection = connection.clone();
        answers.spawn_local(async move { connection.unary(Call::Put, put).await });
        puts += 1;
    }
    while let Some(answer) = answers.join_next().await {
        answer.context("a put was lost")??;
    }
    Ok(puts)
}

pub(super) async fn own_keys(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let watchers = context.workload.clients;
    let connection = running.connect(0).await?;
    tokio::time::sleep(SETTLE).await;
    let before = running.usage();
    let started = Instant::now();
    let watch = |i| Watch { key: key(i), range_end: Bytes::new(), start_revision: 0 };
    let all = Watchers::start(running, (0..watchers).map(watch)).await?;
    let created = started.elapsed();
    tokio::time::sleep(SETTLE).await;
    let after = running.usage();

    let window = Window::open(running);
    let arrivals = &all.arrivals;
    let keys = |random: &mut StdRng| key(random.random_range(0..watchers));
    let puts = put_at_pace(context, &connection, arrivals, OWN_KEY_PUTS_PER_SECOND, keys).await?;
    arrivals.reach(puts).await?;
    let mut usage = Sample::default();
    window.close(running, puts, &mut usage);
    let mut sample = arrivals.take_delays()?.sample()?;
    sample.figures.append(&mut usage.figures);
    sample.figures.remove(&Metric::Throughput);
    sample.set(Metric::CreateTime, created.as_secs_f64());
    if let (Some(before), Some(after)) = (before, after) {
        let grown = after.memory_bytes.saturating_sub(before.memory_bytes);
        sample.set(Metric::MemoryPerWatcher, grown as f64 / watchers as f64);
    }
    Ok(sample)
}
