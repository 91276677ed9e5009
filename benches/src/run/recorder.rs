//! What the clients of a load write down, and what becomes of it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::Failure;
use crate::results::{Metric, Sample};
use crate::system::{Running, Usage};

/// One minute in microseconds: what takes longer counts as that.
const LATENCY_MAX_US: u64 = 60_000_000;
const TENTH: Duration = Duration::from_millis(100);

/// Latencies and counts of what happened in a window of time.
#[derive(Debug)]
pub(super) struct Recorder {
    latency: Histogram<u64>,
    since: Option<Instant>,
    pub(super) done: u64,
    failed: u64,
    first_failure: Option<Failure>,
    timeline: Vec<u32>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Self {
            latency: latency.expect("bounds in order"),
            since: None,
            done: 0,
            failed: 0,
            first_failure: None,
            timeline: Vec::new(),
        }
    }

    /// Counts from now on.
    pub(super) fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    pub(super) fn stop(&mut self) {
        self.since = None;
    }

    pub(super) fn done(&mut self, latency: Duration) {
        let Some(since) = self.since else { return };
        self.done += 1;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US);
        self.latency.saturating_record(micros);
        let tenth = usize::try_from(since.elapsed().as_millis() / TENTH.as_millis());
        let tenth = tenth.unwrap_or(usize::MAX).min(36_000);
        if self.timeline.len() <= tenth {
            self.timeline.resize(tenth + 1, 0);
        }
        self.timeline[tenth] += 1;
    }

    /// Failures count always: one before the window explains an empty window.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.failed += 1;
        self.first_failure.get_or_insert(failure);
    }

    pub(super) fn timeline(&self) -> &[u32] {
        &self.timeline
    }

    /// Percentiles, the tail and the timeline; refused when nothing was done.
    pub(super) fn sample(&self) -> anyhow::Result<Sample> {
        let failure = self.first_failure.as_ref();
        if self.done == 0 {
            let reason = failure.map_or("nothing was answered".to_owned(), ToString::to_string);
            anyhow::bail!("no operation succeeded: {reason}");
        }
        let mut sample = Sample { timeline: self.timeline.clone(), ..Sample::default() };
        for (metric, quantile) in [(Metric::P50, 0.5), (Metric::P99, 0.99), (Metric::P999, 0.999)] {
            sample.set(metric, self.latency.value_at_quantile(quantile) as f64);
        }
        sample.tail = self.tail();
        if let Some(failure) = failure {
            sample.notes.push(format!("some requests failed, the first with: {failure}"));
            sample.set(Metric::FailedRequests, self.failed as f64);
        }
        Ok(sample)
    }

    /// Ten points a decade: 0.9, 0.99, … as 1, 2, …
    fn tail(&self) -> Vec<(f64, u64)> {
        let decades = (self.done as f64).log10().min(5.0);
        let steps = 0..=50;
        let nines = steps.map(|step| f64::from(step) / 10.0).filter(|nines| *nines <= decades);
        nines
            .map(|nines| (nines, self.latency.value_at_quantile(1.0 - 10f64.powf(-nines))))
            .collect()
    }
}

/// What servers and generator used since it was opened.
#[derive(Debug)]
pub(super) struct Window {
    opened: Instant,
    servers: Option<Usage>,
    generator: f64,
}

impl Window {
    pub(super) fn open(running: &Running) -> Self {
        running.reset_peaks();
        Self {
            opened: Instant::now(),
            servers: running.usage(),
            generator: Usage::own_cpu_seconds(),
        }
    }

    /// Adds throughput, CPU time and peak memory for `operations`.
    pub(super) fn close(&self, running: &Running, operations: u64, sample: &mut Sample) {
        let seconds = self.opened.elapsed().as_secs_f64();
        let thousands = (operations as f64 / 1_000.0).max(f64::MIN_POSITIVE);
        let generator = Usage::own_cpu_seconds() - self.generator;
        sample.set(Metric::Throughput, operations as f64 / seconds);
        sample.set(Metric::GeneratorCpu, generator / thousands);
        if let (Some(before), Some(now)) = (&self.servers, running.usage()) {
            sample.set(Metric::ServerCpu, (now.cpu_seconds - before.cpu_seconds) / thousands);
            sample.set(Metric::PeakMemory, mebibytes(now.peak_bytes));
        }
    }
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_in_the_window_counts() {
        let mut recorder = Recorder::new();
        recorder.done(Duration::from_micros(5));
        recorder.start();
        (0..100).for_each(|_| recorder.done(Duration::from_micros(100)));
        recorder.stop();
        recorder.done(Duration::from_micros(5));
        let sample = recorder.sample().expect("operations");
        assert_eq!(recorder.done, 100);
        assert!((sample.figures[&Metric::P50] - 100.0).abs() < 1.0);
        assert_eq!(recorder.timeline().iter().sum::<u32>(), 100);
        assert_eq!(sample.tail.last().map(|point| point.0), Some(2.0), "as far as 100 values tell");
    }

    #[test]
    fn a_window_of_failures_says_why() {
        let mut recorder = Recorder::new();
        recorder.start();
        recorder.failed(Failure { code: 14, message: "gone".into(), sent: true });
        let error = recorder.sample().expect_err("nothing done").to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
