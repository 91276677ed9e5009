//! Sets of completion indexes, kept as intervals: `status.completedIndexes` of a million is `0-999999`.

use k8s_openapi::api::core::v1::Pod;
use std::{collections::BTreeSet, fmt};

/// The annotation (and label) that says which index a pod works on.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The index that a pod works on.
pub(super) fn completion_index(pod: &Pod) -> Option<i32> {
    let text = pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// A set of indexes: sorted intervals, ends included, that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what [`fmt::Display`] writes; indexes from `limit` on are dropped, and so is what is no interval.
    pub fn parse(text: &str, limit: i32) -> Self {
        let intervals = text.split(',').filter_map(|interval| {
            let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
            let (first, last) = (first.parse().ok()?, last.parse::<i32>().ok()?.min(limit - 1));
            (0 <= first && first <= last).then_some((first, last))
        });
        Self::normal(intervals.collect())
    }

    fn normal(mut intervals: Vec<(i32, i32)>) -> Self {
        intervals.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// What is in one or the other.
    pub fn union(&self, other: &Self) -> Self {
        Self::normal(self.0.iter().chain(&other.0).copied().collect())
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many are in both.
    pub fn common(&self, other: &Self) -> i32 {
        let of_one = |(first, last): &(i32, i32)| {
            let overlaps =
                other.0.iter().map(|(from, to)| (last.min(to) - first.max(from) + 1).max(0));
            overlaps.sum::<i32>()
        };
        self.0.iter().map(of_one).sum()
    }

    /// Those below `limit` that are not in the set, in order. Steps over intervals, not over indexes.
    pub fn absent(&self, limit: i32) -> impl Iterator<Item = i32> {
        let starts = self.0.iter().map(|(first, _)| *first).chain([i32::MAX]);
        let ends = [0].into_iter().chain(self.0.iter().map(|(_, last)| last.saturating_add(1)));
        ends.zip(starts).flat_map(move |(from, to)| from..to.min(limit))
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        let indexes: BTreeSet<i32> = indexes.into_iter().collect();
        Self::normal(indexes.into_iter().map(|index| (index, index)).collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_read_and_written_as_upstream_does() {
        for (text, limit, want) in [
            ("", 10, ""),
            ("1", 10, "1"),
            ("1,2", 10, "1,2"),
            ("1-2", 10, "1,2"),
            ("0,1,2,5-7,9", 10, "0-2,5-7,9"),
            ("0-9", 5, "0-4"),
            ("7,8", 5, ""),
            ("x,3-y,4", 10, "4"),
        ] {
            assert_eq!(Indexes::parse(text, limit).to_string(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            a in prop::collection::btree_set(0..60i32, 0..40),
            b in prop::collection::btree_set(0..60i32, 0..40),
        ) {
            let (left, right): (Indexes, Indexes) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let both = left.union(&right);
            prop_assert_eq!(both.total() as usize, a.union(&b).count());
            prop_assert_eq!(left.common(&right) as usize, a.intersection(&b).count());
            let absent: Vec<_> = (0..50).filter(|i| !a.contains(i)).collect();
            prop_assert_eq!(left.absent(50).collect::<Vec<_>>(), absent);
            prop_assert!((0..60).all(|i| both.contains(i) == (a.contains(&i) || b.contains(&i))));
            prop_assert_eq!(Indexes::parse(&both.to_string(), 60), both);
        }
    }
}
