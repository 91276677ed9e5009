//! What a batch has written and nobody else knows yet, ordered like the database, so that later
//! commands of the batch read through it.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::keyspace::lease::LeaseRecord;
use crate::keyspace::log::Change;
use crate::keyspace::{Record, history};

/// What happened to a key.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) key: Bytes,
    pub(crate) revision: i64,
    /// Its place among the changes of the revision.
    pub(crate) sub: u32,
    /// The record that it ended, if the key was there.
    pub(crate) previous: Option<Record>,
    /// The record that it made; none where it deleted the key.
    pub(crate) next: Option<Record>,
}

impl Changed {
    pub(crate) fn change(&self) -> Change {
        match (&self.previous, &self.next) {
            (None, Some(_)) => Change::Create,
            (Some(_), Some(_)) => Change::Update,
            (_, None) => Change::Delete,
        }
    }
}

/// `None` is a key that the batch deleted.
pub(crate) type Written = BTreeMap<Bytes, Option<Record>>;

#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// By user key.
    pub(crate) current: Written,
    /// In the order in which they happened.
    changes: Vec<Changed>,
    /// The versions that they ended, by encoded history key, once somebody has read them; never `None`.
    history: OnceCell<Written>,
    pub(crate) leases: BTreeMap<i64, Option<LeaseRecord>>,
    /// Whether the key is attached to the lease.
    pub(crate) lease_keys: BTreeMap<(i64, Bytes), bool>,
}

impl Overlay {
    pub(crate) fn change(&mut self, changed: Changed) {
        self.history.take();
        self.current.insert(changed.key.clone(), changed.next.clone());
        self.changes.push(changed);
    }

    pub(crate) fn changes(&self) -> &[Changed] {
        &self.changes
    }

    /// All changes; leaves none.
    pub(crate) fn take_changes(&mut self) -> Vec<Changed> {
        self.history.take();
        std::mem::take(&mut self.changes)
    }

    /// Versions that ended, by encoded history key.
    pub(crate) fn history(&self) -> &Written {
        let ended = |one: &Changed| {
            let previous = one.previous.clone()?;
            Some((history::key(&one.key, one.revision).into(), Some(previous)))
        };
        self.history.get_or_init(|| self.changes.iter().filter_map(ended).collect())
    }
}
