//! What must hold, judged from a [`History`] alone; one file an invariant.
//!
//! The store's revisions make most of this cheap: they claim one order of all writes. The claim is
//! not trusted. It is held against everything that clients and watchers saw and against the order
//! in which calls were answered and made; only a history that fits it in every point passes.

pub mod linearizable;
pub mod locks;
pub mod order;
pub mod reads;
mod timeline;
pub mod watches;

pub use timeline::Timeline;

use crate::history::{History, Moment};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
    /// Where in the history to look.
    pub around: Vec<Moment>,
}

impl Violation {
    /// One that can be seen at these places.
    pub fn new(invariant: &'static str, what: String, around: &[Moment]) -> Self {
        Self { invariant, what, around: around.to_vec() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Judges a history by all invariants.
pub fn check(history: &History) -> Vec<Violation> {
    let timeline = match Timeline::of(history) {
        Ok(timeline) => timeline,
        // Whatever else is wrong follows from this.
        Err(violation) => return vec![*violation],
    };
    let mut found = order::check(history, &timeline);
    found.extend(reads::check(history, &timeline));
    found.extend(watches::check(history, &timeline));
    found.extend(locks::check(history, &timeline));
    found.extend(linearizable::check(history));
    found
}
