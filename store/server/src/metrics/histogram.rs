//! A histogram with etcd's buckets: each twice as wide as the one before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// As many as etcd has for everything but round trips.
const BUCKETS: usize = 14;

/// Durations, counted by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bound of the first bucket.
    first: Duration,
    /// How many fell into which bucket; the last one has no bound.
    counts: [AtomicU64; BUCKETS + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Buckets from `first` on.
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, counts: Default::default(), nanos: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let fits = |bucket: &usize| duration <= self.first * (1 << bucket);
        let bucket = (0..BUCKETS).find(fits).unwrap_or(BUCKETS);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Writes the series of `name`; `labels` as in `method="Put",`.
    #[expect(clippy::cast_precision_loss, reason = "a sum of durations: a float by format")]
    pub(super) fn write(&self, name: &str, labels: &str, text: &mut String) {
        let mut count = 0;
        for (bucket, counted) in self.counts.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            let bound = match bucket {
                BUCKETS => "+Inf".to_owned(),
                _ => (self.first * (1 << bucket)).as_secs_f64().to_string(),
            };
            *text += &format!("{name}_bucket{{{labels}le=\"{bound}\"}} {count}\n");
        }
        let seconds = self.nanos.load(Ordering::Relaxed) as f64 / 1e9;
        let labels = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        *text += &format!("{name}_sum{labels} {seconds}\n{name}_count{labels} {count}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_everything_up_to_their_bound() {
        let histogram = Histogram::new(Duration::from_millis(1));
        for millis in [1, 2, 3, 1_000_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        histogram.write("x", "", &mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            &lines[..3],
            ["x_bucket{le=\"0.001\"} 1", "x_bucket{le=\"0.002\"} 2", "x_bucket{le=\"0.004\"} 3"]
        );
        assert_eq!(lines[13], "x_bucket{le=\"8.192\"} 3");
        assert_eq!(&lines[14..], ["x_bucket{le=\"+Inf\"} 4", "x_sum 1000.006", "x_count 4"]);
    }
}
