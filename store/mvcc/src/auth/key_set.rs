//! A set of keys as disjoint ranges in order: asked by binary search.

use bytes::Bytes;
use pintle_store_api::KeyRange;

/// Ranges that neither overlap nor touch, in order. Immutable once made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet(Vec<KeyRange>);

impl KeySet {
    /// The union of the ranges.
    pub(crate) fn union(ranges: impl IntoIterator<Item = KeyRange>) -> Self {
        let mut ranges: Vec<KeyRange> =
            ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by(|a, b| a.start().cmp(b.start()));
        let mut merged: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if touches(last, &range) => *last = joined(last, &range),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Whether every key that a request names is in the set. An empty `range_end` names one key,
    /// `\0` all keys from `key` on. A range that ends before it begins names its first key.
    pub(crate) fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|range| range.start().as_ref() <= key);
        let Some(range) = after.checked_sub(1).map(|last| &self.0[last]) else { return false };
        match (range.end(), range_end) {
            (None, _) => true,
            (Some(_), [0]) => false,
            (Some(end), []) => key < end.as_ref(),
            (Some(end), range_end) => key < end.as_ref() && range_end <= end.as_ref(),
        }
    }
}

fn touches(last: &KeyRange, next: &KeyRange) -> bool {
    last.end().is_none_or(|end| next.start() <= end)
}

fn joined(last: &KeyRange, next: &KeyRange) -> KeyRange {
    let end: Option<Bytes> = match (last.end(), next.end()) {
        (Some(a), Some(b)) => Some(a.max(b).clone()),
        _ => None,
    };
    KeyRange::between(last.start().clone(), end)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn range(key: &'static str, range_end: &'static str) -> KeyRange {
        KeyRange::from_request(key.into(), range_end.into())
    }

    fn set(ranges: &[(&'static str, &'static str)]) -> KeySet {
        KeySet::union(ranges.iter().map(|(key, range_end)| range(key, range_end)))
    }

    #[test]
    fn touching_ranges_become_one() {
        assert_eq!(set(&[("c", "e"), ("a", "c")]), set(&[("a", "e")]));
        assert_eq!(set(&[("a", ""), ("a\0", "")]), set(&[("a", "a\0\0")]));
        assert_eq!(set(&[("a", "\0"), ("b", "c"), ("x", "\0")]), set(&[("a", "\0")]));
        assert_ne!(set(&[("a", "b"), ("c", "d")]), set(&[("a", "d")]));
    }

    #[test]
    fn a_request_must_lie_inside() {
        let set = set(&[("a", "c"), ("k", ""), ("x", "\0")]);
        for (key, range_end, covered) in [
            ("a", "", true),
            ("b\u{ff}", "", true),
            ("c", "", false),
            ("a", "c", true),
            ("a", "c\0", false),
            ("\0", "c", false),
            ("b", "\0", false),
            ("k", "", true),
            ("k\0", "", false),
            ("k", "k\0", true),
            ("k", "k\0\0", false),
            ("x", "\0", true),
            ("y", "\0", true),
            ("w", "\0", false),
            ("y", "z", true),
            ("\0", "\0", false),
            ("b", "a", true),
            ("d", "a", false),
        ] {
            assert_eq!(
                set.covers(key.as_bytes(), range_end.as_bytes()),
                covered,
                "{key} {range_end}"
            );
        }
    }

    #[test]
    fn a_range_that_is_none_adds_nothing() {
        assert_eq!(KeySet::union([range("c", "a")]), KeySet::default());
        assert!(!KeySet::default().covers(b"a", b""));
    }

    fn key() -> impl Strategy<Value = Bytes> {
        vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)], 1..3).prop_map(Bytes::from)
    }

    fn range_end() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key()]
    }

    /// All keys of up to three of the four bytes: what `key` and `range_end` can tell apart.
    fn universe() -> Vec<Bytes> {
        let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
        for length in 0..3 {
            let longest = keys.iter().filter(|key| key.len() == length).cloned();
            let longer = Vec::from_iter(longest).into_iter().flat_map(|key| {
                [0, b'a', b'b', 0xff].map(|byte| [key.as_slice(), &[byte]].concat())
            });
            keys.extend(Vec::from_iter(longer));
        }
        keys.into_iter().filter(|key| !key.is_empty()).map(Bytes::from).collect()
    }

    proptest! {
        #[test]
        fn covers_what_a_look_at_every_key_finds(
            granted in vec((key(), range_end()), 0..6),
            asked in vec((key(), range_end()), 1..12),
        ) {
            let ranges: Vec<KeyRange> = granted
                .into_iter()
                .map(|(key, range_end)| KeyRange::from_request(key, range_end))
                .collect();
            let set = KeySet::union(ranges.iter().cloned());
            let held = |key: &Bytes| ranges.iter().any(|range| range.contains(key));
            for (key, range_end) in asked {
                let range = KeyRange::from_request(key.clone(), range_end.clone());
                // Open ends are told apart from very high ones: only the former are open.
                let open = range.end().is_none();
                let open_held = ranges.iter().any(|range| range.end().is_none());
                let mut keys: Vec<Bytes> =
                    universe().into_iter().filter(|key| range.contains(key)).collect();
                if range.is_empty() {
                    keys.push(key.clone());
                }
                let expected = keys.iter().all(held) && (!open || open_held);
                prop_assert_eq!(set.covers(&key, &range_end), expected, "{:?} {:?}", key, range_end);
            }
        }

        #[test]
        fn the_order_of_grants_does_not_matter(
            granted in vec((key(), range_end()), 0..6).prop_shuffle(),
        ) {
            let ranges = |granted: &[(Bytes, Bytes)]| KeySet::union(
                granted.iter().cloned().map(|(key, end)| KeyRange::from_request(key, end)),
            );
            let mut reversed = granted.clone();
            reversed.reverse();
            prop_assert_eq!(ranges(&granted), ranges(&reversed));
        }
    }
}
