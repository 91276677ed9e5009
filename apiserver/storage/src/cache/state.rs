//! What a cache keeps under its lock: the phase it is in, and the rings that watchers read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{CacheEvent, RawEvent, Snapshot};
use crate::ring::Ring;

#[derive(Debug)]
pub(super) enum Phase {
    /// The first list is under way; changes are collected. `overflowed`: some were dropped.
    Loading {
        pending: Vec<RawEvent>,
        overflowed: bool,
    },
    Ready,
}

/// Which changes a watcher is woken for. All others cost it nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of the resource.
    All,
    /// The object with this key (`namespace/name` or `name`).
    Object(Arc<str>),
    /// The objects whose [`CacheSpec::index`] field has this value, before or after the change.
    Indexed(Arc<str>),
}

/// The ring of one scope narrower than [`Scope::All`]; there while somebody watches it.
#[derive(Debug)]
pub(super) struct Narrow {
    pub(super) ring: Ring,
    watchers: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Raised when the cache starts anew: watchers of an older epoch are closed.
    pub(super) epoch: u64,
    pub(super) all: Ring,
    pub(super) narrow: HashMap<Scope, Narrow>,
    pub(super) paged: VecDeque<Snapshot>,
}

impl State {
    pub(super) fn ring(&self, scope: &Scope) -> Option<&Ring> {
        match scope {
            Scope::All => Some(&self.all),
            scope => self.narrow.get(scope).map(|narrow| &narrow.ring),
        }
    }

    /// The ring of a scope, with one more watcher.
    pub(super) fn join(&mut self, scope: &Scope, index: &[String]) -> &Ring {
        if *scope == Scope::All {
            return &self.all;
        }
        let all = &self.all;
        let narrow = self.narrow.entry(scope.clone()).or_insert_with(|| Narrow {
            ring: all.filtered(|event| event.scopes(index).any(|it| it == *scope)),
            watchers: 0,
        });
        narrow.watchers += 1;
        &narrow.ring
    }

    pub(super) fn leave(&mut self, scope: &Scope) {
        if let Some(narrow) = self.narrow.get_mut(scope) {
            narrow.watchers -= 1;
            if narrow.watchers == 0 {
                self.narrow.remove(scope);
            }
        }
    }

    pub(super) fn push(&mut self, event: Arc<CacheEvent>, index: &[String]) {
        if !self.narrow.is_empty() {
            for scope in event.scopes(index) {
                if let Some(narrow) = self.narrow.get_mut(&scope) {
                    narrow.ring.push(event.clone());
                }
            }
        }
        self.all.push(event);
    }
}
