//! Every key is a linearizable register, by search: the judge that does not look at revisions.
//!
//! Keys on leases are left out, since their deletions are nobody's operation.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{Answer, Call, History, Operation, Record};
use crate::linearizability::{Piece, Step, Value, Verdict, search};

const INVARIANT: &str = "every key is a linearizable register";

/// Partial orders that are tried for a key; what takes more is left to the other judges.
const BUDGET: usize = 20_000;

/// Judges every key.
pub fn check(history: &History) -> Vec<Violation> {
    let found = keys(history).into_iter().filter_map(|key| judge(history, key));
    found.collect()
}

/// The keys that never hung on a lease.
fn keys(history: &History) -> BTreeSet<&str> {
    let mut keys = BTreeSet::new();
    let mut leased = BTreeSet::new();
    for operation in &history.operations {
        let set = match &operation.call {
            Call::Put { lease, .. } | Call::Swap { lease, .. } if *lease != 0 => &mut leased,
            _ => &mut keys,
        };
        set.extend(operation.call.keys().iter().map(String::as_str));
    }
    &keys - &leased
}

fn judge(history: &History, key: &str) -> Option<Violation> {
    let mut values = Values::default();
    let seen = seen(history, key);
    let mut operations = Vec::new();
    let mut pieces = Vec::new();
    for operation in &history.operations {
        let Some(place) = operation.call.keys().iter().position(|one| one == key) else { continue };
        let Some(step) = values.step(operation, place, &seen) else { continue };
        let completed = (!operation.is_open()).then_some(operation.completed.order);
        pieces.push(Piece { invoked: operation.invoked.order, completed, step });
        operations.push(operation);
    }
    let Verdict::Violated(stuck) = search(&pieces, BUDGET) else { return None };
    let stuck: Vec<&Operation> = stuck.into_iter().map(|i| operations[i]).collect();
    let shown: Vec<String> = stuck.iter().map(|one| format!("`{}`", one.call)).collect();
    let what = format!("{key}: none of these can come next: {}", shown.join(", "));
    let around: Vec<_> = stuck.iter().flat_map(|one| [one.invoked, one.completed]).collect();
    Some(Violation::new(INVARIANT, what, &around))
}

/// The values that any answer shows. Every write tells what was there before it, so an open write
/// whose value nobody saw cannot matter to anybody.
fn seen<'a>(history: &'a History, key: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for operation in &history.operations {
        let Some(place) = operation.call.keys().iter().position(|one| one == key) else { continue };
        let (Answer::Found { records, .. } | Answer::Written { previous: Some(records), .. }) =
            &operation.answer
        else {
            continue;
        };
        seen.extend(records[place].as_ref().map(|record| record.value.as_str()));
    }
    seen
}

/// Numbers for values.
#[derive(Default)]
struct Values(BTreeMap<String, Value>);

impl Values {
    fn number(&mut self, value: &str) -> Value {
        let next = Value::try_from(self.0.len() + 1).expect("fewer values than operations");
        *self.0.entry(value.to_owned()).or_insert(next)
    }

    fn of(&mut self, record: Option<&Record>) -> Value {
        record.map_or(0, |record| self.number(&record.value))
    }

    fn step(&mut self, operation: &Operation, place: usize, seen: &BTreeSet<&str>) -> Option<Step> {
        let written = match &operation.call {
            Call::Put { value, .. } | Call::Swap { value, .. } => Some(value.as_str()),
            Call::Delete { .. } => None,
            Call::Read { .. } | Call::Compact { .. } => {
                let Answer::Found { records, .. } = &operation.answer else { return None };
                return Some(Step::Saw(self.of(records[place].as_ref())));
            }
        };
        let to = written.map_or(0, |value| self.number(value));
        match &operation.answer {
            Answer::Written { previous: Some(previous), .. } => {
                Some(Step::Replaced(self.of(previous[place].as_ref()), to))
            }
            Answer::Written { previous: None, .. } => Some(Step::Wrote(to)),
            Answer::Found { records, .. } => Some(Step::Saw(self.of(records[place].as_ref()))),
            Answer::Unknown(_) if written.is_none_or(|value| seen.contains(value)) => {
                Some(Step::Wrote(to))
            }
            Answer::Unknown(_) | Answer::Done | Answer::NotApplied(_) => None,
        }
    }
}
