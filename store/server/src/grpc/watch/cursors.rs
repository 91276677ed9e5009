//! The watchers of one stream. Those of the same range and options that keep up have one cursor
//! together: what happens is looked for once, and told to each under its own id.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use crate::watch::{Events, Watcher};

/// One watcher, as the client knows it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: i64,
    pub(super) progress_notify: bool,
    pub(super) fragment: bool,
    /// Whether it was told anything since the last tick of progress.
    pub(super) told: bool,
    /// What it is told begins here.
    from: i64,
}

impl Member {
    pub(super) fn new(id: i64, progress_notify: bool, fragment: bool) -> Self {
        Self { id, progress_notify, fragment, told: true, from: 0 }
    }

    /// For one that has joined others, what of `events` it is told.
    pub(super) fn wanted(&mut self, events: &[Events]) -> Option<Vec<Events>> {
        let from = self.from;
        if from == 0 {
            return None;
        }
        if events.last().is_some_and(|last| last.revision >= from) {
            self.from = 0;
        }
        Some(events.iter().filter_map(|events| events.since(from)).collect())
    }
}

/// A cursor and whom it is for.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) watcher: Watcher,
    pub(super) members: SmallVec<[Member; 1]>,
}

/// All cursors, by the key under which each is woken, which is the id of its first watcher where that
/// is free.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Boxed, because the nodes of a tree are rarely full.
    all: BTreeMap<i64, Box<Cursor>>,
    /// The keys of watchers that have another id.
    keys: HashMap<i64, i64>,
}

impl Cursors {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn key(&self, id: i64) -> i64 {
        self.keys.get(&id).copied().unwrap_or(id)
    }

    /// Whether there is a watcher with this id.
    pub(super) fn contains(&self, id: i64) -> bool {
        let cursor = self.all.get(&self.key(id));
        cursor.is_some_and(|cursor| cursor.members.iter().any(|member| member.id == id))
    }

    /// A key for the cursor of a new watcher.
    pub(super) fn free_key(&self, id: i64) -> i64 {
        if !self.all.contains_key(&id) {
            return id;
        }
        let mut spare = i64::MIN..;
        spare.find(|key| !self.all.contains_key(key)).expect("fewer cursors than numbers")
    }

    pub(super) fn insert(&mut self, key: i64, watcher: Watcher, member: Member) {
        if key != member.id {
            self.keys.insert(member.id, key);
        }
        let members = SmallVec::from_buf([member]);
        self.all.insert(key, Box::new(Cursor { watcher, members }));
    }

    /// Adds a watcher who is told what comes from `from` on.
    pub(super) fn join(&mut self, key: i64, from: i64, member: Member) {
        if let Some(cursor) = self.all.get_mut(&key) {
            if key != member.id {
                self.keys.insert(member.id, key);
            }
            cursor.members.push(Member { from, ..member });
        }
    }

    pub(super) fn get(&self, key: i64) -> Option<&Cursor> {
        self.all.get(&key).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, key: i64) -> Option<&mut Cursor> {
        self.all.get_mut(&key).map(AsMut::as_mut)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Cursor> {
        self.all.values().map(AsRef::as_ref)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Cursor> {
        self.all.values_mut().map(AsMut::as_mut)
    }

    /// Removes a watcher, and its cursor with the last one. Whether there was one.
    pub(super) fn remove(&mut self, id: i64) -> bool {
        let key = self.key(id);
        let Some(cursor) = self.all.get_mut(&key) else { return false };
        let Some(at) = cursor.members.iter().position(|member| member.id == id) else {
            return false;
        };
        self.keys.remove(&id);
        cursor.members.remove(at);
        if cursor.members.is_empty() {
            self.all.remove(&key);
        } else {
            cursor.watcher.leave();
        }
        true
    }

    /// Removes a cursor; the ids of all its watchers.
    pub(super) fn remove_all(&mut self, key: i64) -> Vec<i64> {
        let Some(cursor) = self.all.remove(&key) else { return Vec::new() };
        let ids: Vec<i64> = cursor.members.iter().map(|member| member.id).collect();
        for id in &ids {
            self.keys.remove(id);
        }
        ids
    }
}
