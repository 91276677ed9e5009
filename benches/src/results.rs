//! What was measured: the JSON that a run writes, and from which reports are made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::floor::Floor;
use crate::statistics::{Spread, ratios, spread};

/// Something that is measured about a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`Metric::describe` has a line for each")]
pub enum Metric {
    Throughput,
    P50,
    P99,
    P999,
    Floor,
    OverFloor,
    ServerCpu,
    GeneratorCpu,
    PeakMemory,
    Memory,
    AnswerBytes,
    ExtraMemory,
    MemoryPerWatcher,
    CreateTime,
    Time,
    PutsMeanwhile,
    PutP99Before,
    PutP99Meanwhile,
    CompactingOverBefore,
    Gap,
    WorstGap,
    FailedRequests,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
    /// Neither: it explains other figures.
    Neither,
}

/// How a metric is shown.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// In a table.
    pub name: &'static str,
    /// After the number.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
}

impl Metric {
    /// How the metric is shown.
    pub fn describe(self) -> Description {
        use Better::{Higher, Lower, Neither};
        let (name, unit, better) = match self {
            Self::Throughput => ("throughput", "/s", Higher),
            Self::P50 => ("p50", "µs", Lower),
            Self::P99 => ("p99", "µs", Lower),
            Self::P999 => ("p99.9", "µs", Lower),
            Self::Floor => ("fdatasync + round trip", "µs", Neither),
            Self::OverFloor => ("p50 over fdatasync + round trip", "×", Lower),
            Self::ServerCpu => ("server CPU per 1,000 operations", "s", Lower),
            Self::GeneratorCpu => ("generator CPU per 1,000 operations", "s", Neither),
            Self::PeakMemory => ("peak memory, all members", "MiB", Lower),
            Self::Memory => ("memory, all members", "MiB", Lower),
            Self::AnswerBytes => ("answer", "MiB", Neither),
            Self::ExtraMemory => ("extra memory of the member asked", "MiB", Lower),
            Self::MemoryPerWatcher => ("memory per watcher, all members", "B", Lower),
            Self::CreateTime => ("time until all watch", "s", Lower),
            Self::Time => ("time until all is delivered", "s", Lower),
            Self::PutsMeanwhile => ("puts meanwhile, over puts before", "", Higher),
            Self::PutP99Before => ("p99 of puts before", "µs", Lower),
            Self::PutP99Meanwhile => ("p99 of puts meanwhile", "µs", Lower),
            Self::CompactingOverBefore => ("puts while compacting, over puts before", "", Higher),
            Self::Gap => ("longest gap without an acknowledged write", "ms", Lower),
            Self::WorstGap => ("the worst gap of a round", "ms", Lower),
            Self::FailedRequests => ("failed requests", "", Lower),
        };
        Description { name, unit, better }
    }
}

/// One system's figures of one round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The figures.
    pub figures: BTreeMap<Metric, f64>,
    /// Latency in microseconds at 1 − 10^−n: the tail, for a plot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<(f64, u64)>,
    /// Operations in each tenth of a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<u32>,
    /// What a reader should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Sample {
    pub(crate) fn set(&mut self, metric: Metric, value: f64) {
        self.figures.insert(metric, value);
    }
}

/// A workload with what each system did in each round: in the order of [`Results::systems`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The workload's name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// A sample, or why there is none, for each round and system.
    pub rounds: Vec<Vec<Result<Sample, String>>>,
}

/// A metric of a workload over all rounds.
#[derive(Clone, Debug)]
pub struct Row {
    /// The metric.
    pub metric: Metric,
    /// For each system.
    pub systems: Vec<Option<Spread>>,
    /// The first system over the second.
    pub ratio: Option<Spread>,
}

impl Measured {
    /// All metrics that any round has, in order.
    pub fn rows(&self) -> Vec<Row> {
        let samples = self.rounds.iter().flatten().flatten();
        let metrics: std::collections::BTreeSet<Metric> =
            samples.flat_map(|sample| sample.figures.keys().copied()).collect();
        metrics.into_iter().map(|metric| self.row(metric)).collect()
    }

    fn row(&self, metric: Metric) -> Row {
        let systems = self.rounds.iter().map(Vec::len).max().unwrap_or(0);
        let figure = |round: &[Result<Sample, String>], system: usize| {
            round.get(system)?.as_ref().ok()?.figures.get(&metric).copied()
        };
        let of = |system| spread(self.rounds.iter().filter_map(|round| figure(round, system)));
        let pairs = self.rounds.iter().map(|round| (figure(round, 0), figure(round, 1)));
        Row { metric, systems: (0..systems).map(of).collect(), ratio: spread(ratios(pairs)) }
    }

    /// What was said besides the figures, once each, with the system it is about.
    pub fn remarks(&self) -> Vec<(usize, String)> {
        let mut remarks = Vec::new();
        for (system, sample) in self.rounds.iter().flat_map(|round| round.iter().enumerate()) {
            let texts = match sample {
                Ok(sample) => sample.notes.clone(),
                Err(reason) => vec![reason.clone()],
            };
            for text in texts {
                if !remarks.contains(&(system, text.clone())) {
                    remarks.push((system, text));
                }
            }
        }
        remarks
    }
}

/// A measured system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named {
    /// In tables.
    pub name: String,
    /// As it reports it.
    pub version: String,
}

/// The machine that everything ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Processors.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's name and release.
    pub kernel: String,
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// How it was called.
    pub command: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// Where.
    pub machine: Machine,
    /// What no store on this machine can go below.
    pub floor: Floor,
    /// The first is ours.
    pub systems: Vec<Named>,
    /// In the order in which they ran.
    pub workloads: Vec<Measured>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(throughput: f64) -> Result<Sample, String> {
        let mut sample = Sample::default();
        sample.set(Metric::Throughput, throughput);
        Ok(sample)
    }

    fn measured(rounds: Vec<Vec<Result<Sample, String>>>) -> Measured {
        Measured { name: "put".into(), about: "puts".into(), rounds }
    }

    #[test]
    fn ratios_pair_what_ran_in_the_same_round() {
        let measured = measured(vec![
            vec![sample(30.0), sample(10.0)],
            vec![sample(10.0), sample(10.0)],
            vec![sample(80.0), sample(40.0)],
        ]);
        let rows = measured.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].ratio, Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(rows[0].systems[1], Some(Spread { min: 10.0, median: 10.0, max: 40.0 }));
    }

    #[test]
    fn a_system_that_cannot_do_it_leaves_a_remark_and_no_ratio() {
        let refused = || Err("unknown method".to_owned());
        let measured = measured(vec![vec![sample(5.0), refused()], vec![sample(6.0), refused()]]);
        assert_eq!(measured.rows()[0].ratio, None);
        assert_eq!(measured.remarks(), [(1, "unknown method".to_owned())]);
    }
}
