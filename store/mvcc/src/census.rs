//! How many keys a range holds, without going over them.
//!
//! etcd answers every range with the count of the whole range, whatever the limit, so a paged
//! list would read everything for every page. The `census` family cuts the living keys into
//! buckets: a bucket's first key, and how many keys there are up to the next bucket. Counting
//! adds up the buckets inside the range, and looks at keys only in the two at its ends.
//!
//! Buckets are written in the same batch as the keys they count, so a snapshot has both. They are
//! how this member finds a number, not part of what members must agree on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pintle_store_api::KeyRange;

use crate::Fault;
use crate::database::Database;
use crate::keyspace::{Family, census};
use crate::pending::Pending;
use crate::view::View;

/// How many times too large a bucket may become while the database is not settled.
const OVERSIZE: i64 = 4;

/// The writer's copy of all buckets.
#[derive(Debug)]
pub(crate) struct Census {
    /// The first begins before every key.
    buckets: BTreeMap<Bytes, i64>,
    touched: BTreeSet<Bytes>,
    /// Buckets that will be cut when that costs nothing but the cut.
    large: BTreeSet<Bytes>,
    /// A bucket with more keys is cut; two neighbours with half of it are joined.
    bucket_keys_max: usize,
}

impl Census {
    pub(crate) fn load(database: &Database, bucket_keys_max: usize) -> Result<Self, Fault> {
        let mut buckets = BTreeMap::from([(Bytes::new(), 0)]);
        let mut stored = database.db().raw_iterator_cf(database.family(Family::Census));
        stored.seek_to_first();
        while let Some((first, count)) = stored.item() {
            buckets.insert(Bytes::copy_from_slice(first), census::decode(count)?);
            stored.next();
        }
        stored.status()?;
        let bucket_keys_max = bucket_keys_max.max(2);
        let large = buckets.iter().filter(|(_, count)| **count > bucket_keys_max as i64);
        let large = large.map(|(first, _)| first.clone()).collect();
        Ok(Self { buckets, touched: BTreeSet::new(), large, bucket_keys_max })
    }

    /// Counts a key in (1) or out (−1).
    pub(crate) fn add(&mut self, key: &Bytes, change: i64) {
        let bucket = self.buckets.range_mut(..=key.clone()).next_back();
        let (first, count) = bucket.expect("the first bucket begins before every key");
        *count += change;
        if !self.touched.contains(first) {
            self.touched.insert(first.clone());
        }
    }

    /// Cuts and joins the buckets that were touched, as they are in `view`. To find where to cut, keys are
    /// read in order, which needs a settled database: where it is not, that waits until one has become much too large.
    pub(crate) fn balance(&mut self, view: &View<'_>, is_settled: bool) -> Result<(), Fault> {
        let max = self.bucket_keys_max as i64;
        let mut touched = Vec::from_iter(self.touched.iter().cloned());
        let is_too_large =
            |first| self.buckets.get(first).is_some_and(|count| *count > max * OVERSIZE);
        let cuts = is_settled || touched.iter().any(is_too_large);
        if cuts {
            touched.extend(std::mem::take(&mut self.large));
        }
        for first in touched {
            let Some(count) = self.buckets.get(&first).copied() else { continue };
            if cuts && count > max {
                self.cut(view, &first, count)?;
            } else if count > max {
                self.large.insert(first);
            } else {
                self.join(&first, count);
            }
        }
        Ok(())
    }

    fn cut(&mut self, view: &View<'_>, first: &Bytes, mut count: i64) -> Result<(), Fault> {
        let half = self.bucket_keys_max / 2;
        let mut scan = view.scan(&KeyRange::between(first.clone(), None), view.revision)?;
        let mut first = first.clone();
        while count > self.bucket_keys_max as i64 {
            for _ in 0..half {
                scan.advance()?;
            }
            let Some((key, _)) = scan.item()? else {
                return Err(Fault::Corrupt { what: "census: it counts more keys than there are" });
            };
            self.set(first, half as i64);
            first = Bytes::copy_from_slice(key);
            count -= half as i64;
        }
        self.set(first, count);
        Ok(())
    }

    /// Into the bucket before, when both are small.
    fn join(&mut self, first: &Bytes, count: i64) {
        let before = self.buckets.range(..first.clone()).next_back();
        if let Some((before, others)) = before
            && others + count <= (self.bucket_keys_max / 2) as i64
        {
            let (before, sum) = (before.clone(), others + count);
            self.set(before, sum);
            self.buckets.remove(first);
        }
    }

    fn set(&mut self, first: Bytes, count: i64) {
        self.touched.insert(first.clone());
        self.buckets.insert(first, count);
    }

    pub(crate) fn write_to(&mut self, pending: &mut Pending) {
        for first in std::mem::take(&mut self.touched) {
            let count = self.buckets.get(&first).map(|count| census::encode(*count));
            pending.row(Family::Census, &first, count.as_ref().map(<[u8; 8]>::as_slice));
        }
    }
}

/// The number of living keys in a range, from a view without a batch's own writes.
pub(crate) fn count(view: &View<'_>, range: &KeyRange) -> Result<i64, Fault> {
    if range.is_empty() {
        return Ok(0);
    }
    if range.start().is_empty() && range.end().is_none() {
        return Ok(view.head.keys);
    }
    let ends_before = |key: &[u8]| range.end().is_some_and(|end| end.as_ref() < key);
    let mut buckets = view.iterate(Family::Census, None)?;
    buckets.seek(range.start());
    let (mut total, mut counted_to) = match buckets.key() {
        Some(first) if !ends_before(first) => {
            let head =
                KeyRange::between(range.start().clone(), Some(Bytes::copy_from_slice(first)));
            (look(view, &head)?, head.end().cloned())
        }
        _ => (0, None),
    };
    while counted_to.is_some()
        && counted_to.as_ref() != range.end()
        && let Some(count) = buckets.value()
    {
        let count = census::decode(count)?;
        buckets.next();
        match buckets.key() {
            Some(next) if !ends_before(next) => counted_to = Some(Bytes::copy_from_slice(next)),
            None if range.end().is_none() => {
                buckets.status()?;
                return Ok(total + count);
            }
            _ => break,
        }
        total += count;
    }
    buckets.status()?;
    let tail = counted_to.unwrap_or_else(|| range.start().clone());
    Ok(total + look(view, &KeyRange::between(tail, range.end().cloned()))?)
}

/// Goes over the keys after all.
fn look(view: &View<'_>, range: &KeyRange) -> Result<i64, Fault> {
    if range.is_empty() {
        return Ok(0);
    }
    view.scan(range, view.revision)?.count_rest()
}
