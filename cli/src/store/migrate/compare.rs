//! Whether the target holds what the source held.

use anyhow::{Context, bail};
use bytes::Bytes;
use pintle_proto::mvccpb::KeyValue;

use super::side::Side;
use crate::store::output;

/// Differences that are named; the rest are counted.
const NAMED_MAX: usize = 10;

/// Goes over both sides in key order. How many keys there are, if all are the same.
pub(super) async fn sides(
    source: &mut Side,
    target: &mut Side,
    revision: i64,
) -> anyhow::Result<u64> {
    let mut theirs = Pages::new(source, revision);
    let mut ours = Pages::new(target, 0);
    let (mut compared, mut differences) = (0, Vec::new());
    let mut bar = None;
    let (mut left, mut right) = (theirs.next().await?, ours.next().await?);
    while let Some(difference) = step(left.as_ref(), right.as_ref()) {
        let bar = bar.get_or_insert_with(|| output::progress("comparing", theirs.count, false));
        let (take_left, take_right) = difference.takes();
        differences.extend(difference.name(left.as_ref().or(right.as_ref())));
        compared += 1;
        bar.set_position(compared);
        if take_left {
            left = theirs.next().await?;
        }
        if take_right {
            right = ours.next().await?;
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if !differences.is_empty() {
        let total = differences.len();
        differences.truncate(NAMED_MAX);
        bail!("{total} keys differ: {}", differences.join(", "));
    }
    Ok(compared)
}

/// What the next keys of both sides say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Same,
    Other,
    Missing,
    Extra,
}

fn step(source: Option<&KeyValue>, target: Option<&KeyValue>) -> Option<Step> {
    match (source, target) {
        (None, None) => None,
        (Some(_), None) => Some(Step::Missing),
        (None, Some(_)) => Some(Step::Extra),
        (Some(source), Some(target)) if source.key < target.key => Some(Step::Missing),
        (Some(source), Some(target)) if source.key > target.key => Some(Step::Extra),
        (Some(source), Some(target)) => {
            let same = source.value == target.value && source.lease == target.lease;
            Some(if same { Step::Same } else { Step::Other })
        }
    }
}

impl Step {
    fn takes(self) -> (bool, bool) {
        match self {
            Self::Same | Self::Other => (true, true),
            Self::Missing => (true, false),
            Self::Extra => (false, true),
        }
    }

    fn name(self, at: Option<&KeyValue>) -> Option<String> {
        let key = at.map_or_else(String::new, |kv| kv.key.escape_ascii().to_string());
        match self {
            Self::Same => None,
            Self::Other => Some(format!("{key:?} has another value or lease")),
            Self::Missing => Some(format!("{key:?} is missing")),
            Self::Extra => Some(format!("a key that the source does not have, by {key:?}")),
        }
    }
}

/// The keys of one side, one after the other.
struct Pages<'a> {
    side: &'a mut Side,
    revision: i64,
    page: std::vec::IntoIter<KeyValue>,
    next: Option<Bytes>,
    count: u64,
}

impl<'a> Pages<'a> {
    fn new(side: &'a mut Side, revision: i64) -> Self {
        let (page, next) = (Vec::new().into_iter(), Some(Bytes::new()));
        Self { side, revision, page, next, count: 0 }
    }

    async fn next(&mut self) -> anyhow::Result<Option<KeyValue>> {
        loop {
            if let Some(kv) = self.page.next() {
                return Ok(Some(kv));
            }
            let Some(next) = self.next.take() else { return Ok(None) };
            let page = self.side.page(next, self.revision).await.context("comparing")?;
            self.count = self.count.max(page.count);
            (self.page, self.next) = (page.kvs.into_iter(), page.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, value: &'static str, lease: i64) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), lease, ..Default::default() }
    }

    #[test]
    fn the_smaller_key_is_the_one_that_is_missing_or_extra() {
        let (a, b) = (kv("a", "1", 0), kv("b", "1", 0));
        assert_eq!(step(Some(&a), Some(&a)), Some(Step::Same));
        assert_eq!(step(Some(&a), Some(&b)), Some(Step::Missing));
        assert_eq!(step(Some(&b), Some(&a)), Some(Step::Extra));
        assert_eq!(step(Some(&a), Some(&kv("a", "2", 0))), Some(Step::Other));
        assert_eq!(step(Some(&a), Some(&kv("a", "1", 7))), Some(Step::Other));
        assert_eq!(step(None, Some(&a)), Some(Step::Extra));
        assert_eq!(step(None, None), None);
    }
}
