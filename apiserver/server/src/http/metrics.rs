//! Counters under upstream's names, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::request_info::RequestInfo;

/// Upper bounds of `apiserver_request_duration_seconds`.
const BUCKETS: [f64; 14] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    total: u64,
    seconds: f64,
}

/// All metrics of this server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(Labels, u16), u64>>,
    durations: Mutex<BTreeMap<Labels, Histogram>>,
    watches: AtomicI64,
    watch_events: AtomicU64,
    panics: AtomicU64,
}

impl Metrics {
    /// One answered request. Watches count, but have no duration.
    pub(crate) fn observe(&self, info: &RequestInfo, code: u16, took: Duration) {
        let labels = Labels::of(info);
        if info.verb != "watch" {
            self.durations.lock().entry(labels.clone()).or_default().add(took.as_secs_f64());
        }
        *self.requests.lock().entry((labels, code)).or_default() += 1;
    }

    /// A handler panicked.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Events that were sent to a watcher.
    pub(crate) fn sent_events(&self, count: usize) {
        self.watch_events.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A watch began (1) or ended (−1).
    pub(crate) fn watches(&self, change: i64) {
        self.watches.fetch_add(change, Ordering::Relaxed);
    }

    /// Everything, with the requests under way (reads, writes) and the caches' revision.
    pub(crate) fn render(&self, in_flight: (usize, usize), revision: i64) -> String {
        let mut out = String::with_capacity(64 << 10);
        self.write(&mut out, in_flight, revision).expect("writing to a string does not fail");
        out
    }

    fn write(
        &self,
        out: &mut String,
        in_flight: (usize, usize),
        revision: i64,
    ) -> std::fmt::Result {
        header(out, "apiserver_request_total", "counter", "Answered requests.")?;
        for ((labels, code), count) in &*self.requests.lock() {
            writeln!(out, "apiserver_request_total{{code=\"{code}\",{labels}}} {count}")?;
        }
        let name = "apiserver_request_duration_seconds";
        header(out, name, "histogram", "Time to the answer, watches excepted.")?;
        for (labels, histogram) in &*self.durations.lock() {
            histogram.write(out, name, labels)?;
        }
        header(out, "apiserver_current_inflight_requests", "gauge", "Requests under way.")?;
        writeln!(
            out,
            "apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {}",
            in_flight.0
        )?;
        writeln!(
            out,
            "apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {}",
            in_flight.1
        )?;
        header(out, "apiserver_longrunning_requests", "gauge", "Watches under way.")?;
        writeln!(out, "apiserver_longrunning_requests {}", self.watches.load(Ordering::Relaxed))?;
        header(out, "apiserver_watch_events_total", "counter", "Events sent to watchers.")?;
        writeln!(
            out,
            "apiserver_watch_events_total {}",
            self.watch_events.load(Ordering::Relaxed)
        )?;
        header(
            out,
            "apiserver_request_panics_total",
            "counter",
            "Requests that ended in a panic.",
        )?;
        writeln!(out, "apiserver_request_panics_total {}", self.panics.load(Ordering::Relaxed))?;
        header(
            out,
            "apiserver_watch_cache_resource_version",
            "gauge",
            "Revision the caches have reached.",
        )?;
        writeln!(out, "apiserver_watch_cache_resource_version {revision}")
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

impl Labels {
    fn of(info: &RequestInfo) -> Self {
        let scope = match () {
            () if !info.is_resource_request => "",
            () if !info.name.is_empty() => "resource",
            () if !info.namespace.is_empty() => "namespace",
            () => "cluster",
        };
        let verb = if info.is_resource_request {
            info.verb.to_ascii_uppercase()
        } else {
            info.verb.clone()
        };
        Self {
            verb,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            scope,
        }
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        for (count, bound) in self.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        self.total += 1;
        self.seconds += seconds;
    }

    fn write(&self, out: &mut String, name: &str, labels: &Labels) -> std::fmt::Result {
        for (count, bound) in self.counts.iter().zip(BUCKETS) {
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
        }
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.total)?;
        writeln!(out, "{name}_sum{{{labels}}} {}", self.seconds)?;
        writeln!(out, "{name}_count{{{labels}}} {}", self.total)
    }
}
