//! Where on disk the entries are.

use std::collections::VecDeque;
use std::sync::Arc;

use super::segments::Segment;

/// Where one encoded entry lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// The places of consecutive entries.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: u64,
    places: VecDeque<Place>,
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The index of the first entry, if there is one.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The index after the last entry.
    fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Adds the next entry; the first one may have any index. The error says what is wrong.
    pub(super) fn push(&mut self, index: u64, place: Place) -> Result<(), String> {
        if self.places.is_empty() {
            self.first = index;
        } else if index != self.next() {
            return Err(format!("entry {index} instead of {}", self.next()));
        }
        self.places.push_back(place);
        Ok(())
    }

    pub(super) fn truncate(&mut self, from: u64) {
        let keep = from.saturating_sub(self.first);
        self.places.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while !self.places.is_empty() && self.first <= upto {
            self.places.pop_front();
            self.first += 1;
        }
    }

    /// Those of `start..end` that there are, in order.
    pub(super) fn range(&self, start: u64, end: u64) -> impl Iterator<Item = &Place> {
        let at = |index: u64| {
            let at = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
            at.min(self.places.len())
        };
        let (start, end) = (at(start), at(end));
        self.places.range(start..end.max(start))
    }

    pub(super) fn last(&self) -> Option<&Place> {
        self.places.back()
    }
}
