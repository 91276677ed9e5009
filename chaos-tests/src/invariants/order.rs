//! The order that the revisions claim is one in which everything could have happened: no two
//! writes share a revision, and what was answered before another call was made comes before it.
//! Together with `reads` this proves the history linearizable, over all keys at once.

use std::collections::BTreeMap;

use super::{Timeline, Violation};
use crate::history::{Answer, History, Moment, Operation};

const REVISIONS: &str = "a revision belongs to one write";
const REAL_TIME: &str = "what was answered comes before what was asked later";
const HONEST: &str = "an error says what became of a write";

/// Judges the order of the revisions.
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(shared_revisions(history, timeline));
    found.extend(dishonest_errors(history, timeline));
    found.extend(against_time(history, timeline));
    found
}

fn shared_revisions(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<i64, &Operation> = BTreeMap::new();
    for operation in &history.operations {
        let Answer::Written { revision, .. } = operation.answer else { continue };
        if let Some(other) = owners.insert(revision, operation) {
            let what = format!("@{revision} belongs to `{}` and `{}`", other.call, operation.call);
            found.push(Violation::new(REVISIONS, what, &[other.completed, operation.completed]));
        }
    }
    for (key, revision, change) in timeline.all() {
        let Some(owner) = owners.get(&revision) else { continue };
        if !owner.call.keys().iter().any(|one| one == key) {
            let what = format!("@{revision} of `{}` also changed {key}", owner.call);
            found.push(Violation::new(REVISIONS, what, &[owner.completed, change.heard]));
        }
    }
    found
}

/// The revisions at which each value was written, as anybody saw it.
fn writes_of(timeline: &Timeline) -> BTreeMap<&str, BTreeMap<i64, Moment>> {
    let mut writes: BTreeMap<&str, BTreeMap<i64, Moment>> = BTreeMap::new();
    for (_, revision, change) in timeline.all() {
        if let Some(record) = &change.record {
            writes.entry(&record.value).or_default().insert(revision, change.heard);
        }
    }
    writes
}

fn dishonest_errors(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let writes = writes_of(timeline);
    let mut found = Vec::new();
    for operation in &history.operations {
        let Some(seen) = operation.call.value().and_then(|value| writes.get(value)) else {
            continue;
        };
        let heard: Vec<Moment> = seen.values().copied().collect();
        let around = [heard.as_slice(), &[operation.completed]].concat();
        let revisions: Vec<i64> = seen.keys().copied().collect();
        if revisions.len() > 1 {
            let what = format!("`{}` was applied more than once: {revisions:?}", operation.call);
            found.push(Violation::new(HONEST, what, &around));
        }
        if let Answer::NotApplied(reason) = &operation.answer {
            let what = format!(
                "`{}` was applied @{} in spite of {reason:?}",
                operation.call, revisions[0]
            );
            found.push(Violation::new(HONEST, what, &around));
        }
    }
    found
}

/// A place in the claimed order: a write, or between a write and the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Write(i64),
    After(i64),
}

impl Place {
    fn key(self) -> (i64, bool) {
        match self {
            Self::Write(revision) => (revision, false),
            Self::After(revision) => (revision, true),
        }
    }

    /// Whether something at `self` may come after something else at `earlier`.
    fn may_follow(self, earlier: Self) -> bool {
        match self {
            Self::Write(_) => self.key() > earlier.key(),
            Self::After(_) => self.key() >= earlier.key(),
        }
    }
}

fn place(operation: &Operation, writes: &BTreeMap<&str, BTreeMap<i64, Moment>>) -> Option<Place> {
    match &operation.answer {
        Answer::Written { revision, .. } => Some(Place::Write(*revision)),
        Answer::Found { revision, .. } => Some(Place::After(*revision)),
        // Somebody saw that it did happen.
        Answer::Unknown(_) => {
            let (revision, _) = writes.get(operation.call.value()?)?.first_key_value()?;
            Some(Place::Write(*revision))
        }
        Answer::Done | Answer::NotApplied(_) => None,
    }
}

fn against_time(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let writes = writes_of(timeline);
    let mut answered: Vec<(Moment, Place, &Operation)> = history
        .operations
        .iter()
        .filter(|operation| !operation.is_open())
        .filter_map(|operation| Some((operation.completed, place(operation, &writes)?, operation)))
        .collect();
    answered.sort_by_key(|(completed, ..)| *completed);
    // The furthest place that had been answered by then.
    let mut furthest: Vec<(Moment, Place, &Operation)> = Vec::with_capacity(answered.len());
    for (completed, at, operation) in answered {
        match furthest.last() {
            Some((_, before, earlier)) if before.key() >= at.key() => {
                furthest.push((completed, *before, earlier));
            }
            _ => furthest.push((completed, at, operation)),
        }
    }
    let mut found = Vec::new();
    for operation in &history.operations {
        let Some(at) = place(operation, &writes) else { continue };
        let before = furthest.partition_point(|(completed, ..)| *completed < operation.invoked);
        let Some((_, earlier_at, earlier)) = before.checked_sub(1).map(|i| furthest[i]) else {
            continue;
        };
        if !at.may_follow(earlier_at) {
            let what = format!(
                "`{} -> {}` was asked after `{} -> {}` was answered",
                operation.call, operation.answer, earlier.call, earlier.answer
            );
            let around = [earlier.completed, operation.invoked, operation.completed];
            found.push(Violation::new(REAL_TIME, what, &around));
        }
    }
    found
}
