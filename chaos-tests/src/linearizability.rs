//! Wing and Gong's search, with Lowe's memory of what was tried: whether the operations on one
//! register can be put into an order that respects their calls and answers and explains what each
//! of them saw. It knows nothing of revisions, so it is a second opinion that the store's numbers
//! cannot talk into anything.
//!
//! The public checkers for Rust want an operation's effect to be certain or keep their state as a
//! thread for each client; here every time-out leaves an operation open for the rest of the run,
//! which this search allows for.

use std::collections::HashSet;

/// A value of the register; 0 is "nothing".
pub type Value = u32;

/// What one operation does to the register, and what it saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It saw this value and changed nothing.
    Saw(Value),
    /// It wrote, seeing nothing.
    Wrote(Value),
    /// It wrote the second over the first.
    Replaced(Value, Value),
}

impl Step {
    fn apply(self, state: Value) -> Option<Value> {
        match self {
            Self::Saw(value) => (state == value).then_some(state),
            Self::Wrote(value) => Some(value),
            Self::Replaced(before, value) => (state == before).then_some(value),
        }
    }
}

/// One operation on the register.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// When it was called.
    pub invoked: u64,
    /// When it was answered; none if it never was: it may have happened at any time since.
    pub completed: Option<u64>,
    /// What it did.
    pub step: Step,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. These are the operations (by place in the input) of which none can be next
    /// after the longest order that was found.
    Violated(Vec<usize>),
    /// It gave up.
    Undecided,
}

type Set = Vec<u64>;

fn has(set: &Set, i: usize) -> bool {
    set[i / 64] & (1 << (i % 64)) != 0
}

/// Searches an order, looking at no more than `budget` partial ones.
pub fn search(pieces: &[Piece], budget: usize) -> Verdict {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|i| pieces[*i].invoked);
    let search = Search { pieces: order.iter().map(|i| pieces[*i]).collect() };
    match search.run(budget) {
        Verdict::Violated(stuck) => Verdict::Violated(stuck.iter().map(|i| order[*i]).collect()),
        other => other,
    }
}

struct Search {
    /// By the time of their calls.
    pieces: Vec<Piece>,
}

impl Search {
    fn run(&self, budget: usize) -> Verdict {
        let empty: Set = vec![0; self.pieces.len().div_ceil(64)];
        let mut open = vec![(empty, 0)];
        let mut tried = HashSet::new();
        let mut longest = (0, Vec::new());
        while let Some((mut set, state)) = open.pop() {
            let candidates = self.advance(&mut set, state);
            if self.is_complete(&set) {
                return Verdict::Linearizable;
            }
            if !tried.insert((set.clone(), state)) {
                continue;
            }
            if tried.len() > budget {
                return Verdict::Undecided;
            }
            let length: u32 = set.iter().map(|word| word.count_ones()).sum();
            if length >= longest.0 {
                longest = (length, candidates.clone());
            }
            for i in candidates {
                if let Some(next) = self.pieces[i].step.apply(state) {
                    let mut with = set.clone();
                    with[i / 64] |= 1 << (i % 64);
                    open.push((with, next));
                }
            }
        }
        Verdict::Violated(longest.1)
    }

    /// Takes everything that only looks and sees the state as it is: where it can be next it may as
    /// well be. Returns what can be next then.
    fn advance(&self, set: &mut Set, state: Value) -> Vec<usize> {
        loop {
            let candidates = self.candidates(set);
            let looks = candidates.iter().filter(|i| self.pieces[**i].step == Step::Saw(state));
            let looks: Vec<usize> = looks.copied().collect();
            if looks.is_empty() {
                return candidates;
            }
            for i in looks {
                set[i / 64] |= 1 << (i % 64);
            }
        }
    }

    /// What was called before anything that is left was answered.
    fn candidates(&self, set: &Set) -> Vec<usize> {
        let mut found = Vec::new();
        let mut first_answer = u64::MAX;
        for (i, piece) in self.pieces.iter().enumerate().filter(|(i, _)| !has(set, *i)) {
            if piece.invoked > first_answer {
                break;
            }
            first_answer = first_answer.min(piece.completed.unwrap_or(u64::MAX));
            found.push(i);
        }
        found
    }

    fn is_complete(&self, set: &Set) -> bool {
        let mut left = self.pieces.iter().enumerate().filter(|(i, _)| !has(set, *i));
        left.all(|(_, piece)| piece.completed.is_none())
    }
}
