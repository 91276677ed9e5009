//! Medians, spreads, ratios.

use serde::{Deserialize, Serialize};

/// Where a handful of values lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle; of an even number, the mean of the two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

/// The spread of `values`; `None` when there are none.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let upper = sorted.len() / 2;
    let lower = (sorted.len() - 1) / 2;
    Some(Spread { min, median: f64::midpoint(sorted[lower], sorted[upper]), max })
}

/// Ours over theirs, round by round; a round that lacks one of them, or whose peer measured
/// nothing, has no ratio.
pub fn ratios(rounds: impl IntoIterator<Item = (Option<f64>, Option<f64>)>) -> Vec<f64> {
    let ratio = |(ours, theirs): (Option<f64>, Option<f64>)| {
        theirs.filter(|theirs| *theirs > 0.0).and_then(|theirs| Some(ours? / theirs))
    };
    rounds.into_iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let found = spread([4.0, 1.0, 2.0, 9.0]).expect("values");
        assert_eq!(found, Spread { min: 1.0, median: 3.0, max: 9.0 });
    }

    #[test]
    fn nothing_has_no_spread() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([f64::NAN]), None);
    }

    #[test]
    fn a_round_without_a_peer_has_no_ratio() {
        let rounds = [
            (Some(6.0), Some(2.0)),
            (Some(6.0), None),
            (None, Some(2.0)),
            (Some(1.0), Some(0.0)),
            (Some(0.0), Some(4.0)),
        ];
        assert_eq!(ratios(rounds), [3.0, 0.0]);
    }

    proptest! {
        #[test]
        fn a_spread_is_ordered_and_made_of_its_values(
            values in proptest::collection::vec(-1e9f64..1e9, 1..20),
        ) {
            let found = spread(values.iter().copied()).expect("values");
            prop_assert!(found.min <= found.median && found.median <= found.max);
            prop_assert!(values.contains(&found.min) && values.contains(&found.max));
            let below = values.iter().filter(|value| **value <= found.median).count();
            prop_assert!(below * 2 >= values.len());
        }
    }
}
