//! What a batch has written and nobody else knows yet, ordered like the database, so that later
//! commands of the batch read through it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::keyspace::lease::LeaseRecord;
use crate::keyspace::log::Change;
use crate::keyspace::{Record, history};
use crate::pending::Ended;

/// `None` is a key that the batch deleted.
pub(crate) type Written = BTreeMap<Bytes, Option<Record>>;

#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// By user key.
    pub(crate) current: Written,
    /// In the order in which they ended.
    history: Vec<Ended>,
    /// The same by encoded history key, once somebody has read it; never `None`.
    history_by_key: OnceCell<Written>,
    pub(crate) log: Vec<(i64, u32, Change, Bytes)>,
    pub(crate) leases: BTreeMap<i64, Option<LeaseRecord>>,
    /// Whether the key is attached to the lease.
    pub(crate) lease_keys: BTreeMap<(i64, Bytes), bool>,
}

impl Overlay {
    /// A version has ended.
    pub(crate) fn end(&mut self, ended: Ended) {
        self.history_by_key.take();
        self.history.push(ended);
    }

    /// Versions that ended, by encoded history key.
    pub(crate) fn history(&self) -> &Written {
        let encoded = |ended: &Ended| {
            (history::key(&ended.key, ended.revision).into(), Some(ended.record.clone()))
        };
        self.history_by_key.get_or_init(|| self.history.iter().map(encoded).collect())
    }

    /// All versions that ended, in order; leaves none.
    pub(crate) fn take_history(&mut self) -> std::vec::Drain<'_, Ended> {
        self.history_by_key.take();
        self.history.drain(..)
    }
}
