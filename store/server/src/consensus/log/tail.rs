//! The newest entries of the log in memory. An entry leaves only when it is on disk, so that a
//! reader finds every entry in one place or the other.

use std::collections::VecDeque;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::super::types::{Entry, LogId};

#[derive(Debug)]
pub(super) struct Tail {
    /// Consecutive; the last one is the last of the log.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The entries below this index are on disk.
    flushed: u64,
    /// What the log ends with, also when `entries` is empty.
    last: Option<LogId>,
    purged: Option<LogId>,
    /// Bytes that stay after they reached the disk.
    bytes_max: usize,
}

fn next(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index() + 1)
}

fn size(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    payload + size_of::<Entry>()
}

impl Tail {
    pub(super) fn new(purged: Option<LogId>, last: Option<LogId>, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, flushed: next(last), last, purged, bytes_max }
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The first index that is held here; everything below is on disk.
    fn first(&self) -> u64 {
        self.entries.front().map_or_else(|| next(self.last), RaftEntry::index)
    }

    /// Where memory begins, and the held entries of `start..end` up to `bytes_max`.
    pub(super) fn read(&self, start: u64, end: u64, bytes_max: usize) -> (u64, Vec<Entry>) {
        let first = self.first();
        let end = end.min(next(self.last));
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in start.max(first)..end {
            let position = usize::try_from(index - first).expect("fewer entries than memory");
            let Some(entry) = self.entries.get(position) else { break };
            if bytes >= bytes_max {
                break;
            }
            bytes += size(entry);
            found.push(entry.clone());
        }
        (first, found)
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.bytes += size(entry);
            self.last = Some(entry.log_id());
            self.entries.push_back(entry.clone());
        }
    }

    /// The entries below `next` are on disk now.
    pub(super) fn flushed(&mut self, next: u64) {
        self.flushed = next;
        while self.bytes > self.bytes_max
            && self.entries.front().is_some_and(|entry| entry.index() < self.flushed)
        {
            let dropped = self.entries.pop_front().expect("just looked at");
            self.bytes -= size(&dropped);
        }
    }

    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let keep = next(last);
        if keep >= next(self.last) {
            return;
        }
        while self.entries.back().is_some_and(|entry| entry.index() >= keep) {
            let dropped = self.entries.pop_back().expect("just looked at");
            self.bytes -= size(&dropped);
        }
        self.flushed = self.flushed.min(keep);
        self.last = last;
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|entry| entry.index() <= upto.index()) {
            let dropped = self.entries.pop_front().expect("just looked at");
            self.bytes -= size(&dropped);
        }
        self.purged = self.purged.max(Some(upto));
        if next(self.last) <= upto.index() {
            // A snapshot took the log's place: it goes on after the hole.
            self.last = Some(upto);
            self.flushed = upto.index() + 1;
        }
    }
}
