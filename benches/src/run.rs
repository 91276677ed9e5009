//! Running a plan: each workload, for some rounds, against each system in turn.

mod catch_up;
mod compaction;
mod fill;
mod leader_loss;
mod lease;
mod list;
mod load;
mod memory;
mod puts;
mod recorder;
mod sources;
mod watch;
mod watchers;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::floor::Floor;
use crate::results::{Measured, Named, Results, Sample};
use crate::system::{MemoryLimit, Running, System, machine};
use crate::workload::{Shape, Workload};

/// What to measure, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the run was asked for; stands in the report.
    pub command: String,
    /// The first is compared with the second.
    pub systems: Vec<System>,
    /// In this order.
    pub workloads: Vec<Workload>,
    /// Each workload runs so many times against each system.
    pub rounds: usize,
    /// How long a workload that has no end of its own is measured.
    pub seconds: f64,
    /// Clients that share a connection.
    pub streams_per_connection: usize,
    /// Revisions that `watch-catch-up` reads.
    pub history: usize,
    /// How often the leader goes in a round.
    pub leader_losses: usize,
    /// How much `beyond-memory` may use; it stores ten times as much.
    pub memory_limit: u64,
    /// Where the systems keep their data.
    pub dir: PathBuf,
}

/// What happens while a plan runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// The systems were found.
    Systems(&'a [Named]),
    /// A workload begins.
    Workload {
        /// Its place.
        index: usize,
        /// How many there are.
        of: usize,
        /// Which.
        workload: &'a Workload,
    },
    /// A system's turn begins.
    Turn {
        /// Which.
        system: &'a str,
        /// From 0 up.
        round: usize,
        /// How many there are.
        of: usize,
    },
    /// A workload is through.
    Measured(&'a Measured),
}

/// What a workload has at hand.
pub(crate) struct Context<'a> {
    plan: &'a Plan,
    workload: &'a Workload,
}

impl Context<'_> {
    fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.plan.seconds)
    }

    fn connections(&self) -> usize {
        self.workload.clients.div_ceil(self.plan.streams_per_connection).max(1)
    }
}

/// A system that runs for a workload. Dropped in this order: processes, their group, their data.
struct Stage {
    running: Running,
    _limit: Option<MemoryLimit>,
    _data: TempDir,
}

/// Runs everything, on this thread. What a system cannot do is part of the results; an error is
/// only what makes the whole run pointless.
pub fn run(plan: &Plan, tell: &mut dyn FnMut(Event<'_>)) -> anyhow::Result<Results> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run_all(plan, tell))
}

async fn run_all(plan: &Plan, tell: &mut dyn FnMut(Event<'_>)) -> anyhow::Result<Results> {
    std::fs::create_dir_all(&plan.dir).with_context(|| plan.dir.display().to_string())?;
    let floor = Floor::measure(&plan.dir).context("measuring the disk")?;
    let mut systems = Vec::new();
    for system in &plan.systems {
        let version = system.version().await?;
        systems.push(Named { name: system.name.clone(), version });
    }
    tell(Event::Systems(&systems));
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut workloads = Vec::new();
    for (index, workload) in plan.workloads.iter().enumerate() {
        tell(Event::Workload { index, of: plan.workloads.len(), workload });
        let measured = measure(&Context { plan, workload }, tell).await;
        tell(Event::Measured(&measured));
        workloads.push(measured);
    }
    Ok(Results {
        command: plan.command.clone(),
        started,
        machine: machine(),
        floor,
        systems,
        workloads,
    })
}

/// Who goes first alternates, so that neither always finds the machine as the other left it.
fn order(round: usize, systems: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..systems).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

async fn measure(context: &Context<'_>, tell: &mut dyn FnMut(Event<'_>)) -> Measured {
    let Context { plan, workload } = context;
    let count = plan.systems.len();
    let of = plan.rounds.min(workload.rounds_max()).max(1);
    let mut stages: Vec<Option<Stage>> = (0..count).map(|_| None).collect();
    let mut rounds = Vec::new();
    for round in 0..of {
        let mut samples: Vec<Result<Sample, String>> = vec![Err("not run".to_owned()); count];
        for system in order(round, count) {
            let name = &plan.systems[system].name;
            tell(Event::Turn { system: name, round, of });
            let sample = turn(context, &plan.systems[system], &mut stages[system]).await;
            samples[system] = sample.map_err(|error| format!("{error:#}"));
            if workload.wants_fresh_store() || samples[system].is_err() {
                stages[system] = None;
            }
        }
        rounds.push(samples);
    }
    Measured { name: workload.name.to_owned(), about: workload.about.to_owned(), rounds }
}

async fn turn(
    context: &Context<'_>,
    system: &System,
    stage: &mut Option<Stage>,
) -> anyhow::Result<Sample> {
    if stage.is_none() {
        *stage = Some(set_up(context, system).await?);
    }
    let running = &mut stage.as_mut().context("just set up")?.running;
    match context.workload.shape {
        Shape::Put { value } => puts::puts(context, running, value).await,
        Shape::Update => puts::updates(context, running).await,
        Shape::Range { keys, serializable } => {
            load::ranges(context, running, keys, serializable).await
        }
        Shape::List { streamed } => list::list(context, running, streamed).await,
        Shape::FanOut => watch::fan_out(context, running).await,
        Shape::WatchOwn => watch::own_keys(context, running).await,
        Shape::CatchUp { paced } => catch_up::catch_up(context, running, paced).await,
        Shape::KeepAlive => lease::keep_alive(context, running).await,
        Shape::Compaction => compaction::compaction(context, running).await,
        Shape::Population => memory::population(context, running).await,
        Shape::BeyondMemory => memory::beyond(context, running).await,
        Shape::LeaderLoss { clean } => leader_loss::losses(context, running, clean).await,
    }
}

async fn set_up(context: &Context<'_>, system: &System) -> anyhow::Result<Stage> {
    let Context { plan, workload } = context;
    let data = tempfile::Builder::new()
        .prefix(&format!("{}-{}-", workload.name, system.name))
        .tempdir_in(&plan.dir)?;
    let limit = match workload.shape {
        Shape::BeyondMemory => Some(MemoryLimit::new(plan.memory_limit)?),
        _ => None,
    };
    let running = Running::start(system, workload.members, data.path(), limit.as_ref()).await?;
    let stage = Stage { running, _limit: limit, _data: data };
    if workload.keys > 0 && workload.shape != Shape::Population {
        fill::fill(&stage.running, workload.keys, crate::workload::VALUE_BYTES).await?;
    }
    Ok(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_first_alternates() {
        assert_eq!(order(0, 2), [0, 1]);
        assert_eq!(order(1, 2), [1, 0]);
        assert_eq!(order(3, 1), [0]);
    }
}
