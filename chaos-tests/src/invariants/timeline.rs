//! One truth: what each key held from which revision on, gathered from everything that anybody was
//! told. Two different tales of the same key and revision are a violation by themselves.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Answer, Call, Delivery, History, Moment, Operation, Record};

const INVARIANT: &str = "everybody is told the same";

/// What happened to a key at a revision, and where that was first heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was written; none for a deletion.
    pub record: Option<Record>,
    /// When it was heard.
    pub heard: Moment,
}

/// The changes of every key, as far as anybody saw them.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    keys: BTreeMap<String, BTreeMap<i64, Change>>,
}

type Learned = Result<(), Box<Violation>>;

impl Timeline {
    /// Gathers what a history tells.
    pub fn of(history: &History) -> Result<Self, Box<Violation>> {
        let mut timeline = Self::default();
        for operation in &history.operations {
            timeline.hear(operation)?;
        }
        for watch in &history.watches {
            for (moment, delivery) in &watch.deliveries {
                timeline.hear_delivery(*moment, delivery)?;
            }
        }
        Ok(timeline)
    }

    fn hear(&mut self, operation: &Operation) -> Learned {
        let heard = operation.completed;
        let keys = operation.call.keys();
        match &operation.answer {
            Answer::Written { revision, previous } => {
                let Some(previous) = previous else { return Ok(()) };
                for (key, before) in keys.iter().zip(previous) {
                    self.hear_record(key, before.as_ref(), heard)?;
                    let record = written(&operation.call, *revision, before.as_ref());
                    self.learn(key, *revision, record, heard)?;
                }
                Ok(())
            }
            Answer::Found { records, .. } => {
                let found = keys.iter().zip(records);
                found
                    .into_iter()
                    .try_for_each(|(key, record)| self.hear_record(key, record.as_ref(), heard))
            }
            Answer::Done | Answer::NotApplied(_) | Answer::Unknown(_) => Ok(()),
        }
    }

    fn hear_delivery(&mut self, heard: Moment, delivery: &Delivery) -> Learned {
        let Delivery::Events { events, .. } = delivery else { return Ok(()) };
        for event in events {
            self.learn(&event.key, event.modified, event.record.clone(), heard)?;
            self.hear_record(&event.key, event.previous.as_ref(), heard)?;
        }
        Ok(())
    }

    fn hear_record(&mut self, key: &str, record: Option<&Record>, heard: Moment) -> Learned {
        let Some(record) = record else { return Ok(()) };
        self.learn(key, record.modified, Some(record.clone()), heard)
    }

    fn learn(
        &mut self,
        key: &str,
        revision: i64,
        record: Option<Record>,
        heard: Moment,
    ) -> Learned {
        let changes = self.keys.entry(key.to_owned()).or_default();
        let told = Change { record, heard };
        let known = changes.entry(revision).or_insert_with(|| told.clone());
        if known.record != told.record {
            let show = |record: &Option<Record>| match record {
                Some(record) => record.to_string(),
                None => "a deletion".to_owned(),
            };
            let what = format!(
                "{key} @{revision} is {} for one and {} for another",
                show(&known.record),
                show(&told.record)
            );
            return Err(Box::new(Violation::new(INVARIANT, what, &[known.heard, heard])));
        }
        Ok(())
    }

    /// The changes of a key, by revision.
    pub fn changes(&self, key: &str) -> impl DoubleEndedIterator<Item = (i64, &Change)> {
        let changes = self.keys.get(key).into_iter().flatten();
        changes.map(|(revision, change)| (*revision, change)).collect::<Vec<_>>().into_iter()
    }

    /// The newest change of a key at or below a revision.
    pub fn newest(&self, key: &str, revision: i64) -> Option<(i64, &Change)> {
        let (at, change) = self.keys.get(key)?.range(..=revision).next_back()?;
        Some((*at, change))
    }

    /// Every change: key, revision, change.
    pub fn all(&self) -> impl Iterator<Item = (&str, i64, &Change)> {
        self.keys.iter().flat_map(|(key, changes)| {
            changes.iter().map(move |(revision, change)| (key.as_str(), *revision, change))
        })
    }
}

/// The record that a write must have made over `before`.
fn written(call: &Call, revision: i64, before: Option<&Record>) -> Option<Record> {
    let (Call::Put { value, lease, .. } | Call::Swap { value, lease, .. }) = call else {
        return None;
    };
    Some(Record {
        value: value.clone(),
        create: before.map_or(revision, |before| before.create),
        modified: revision,
        version: before.map_or(1, |before| before.version + 1),
        lease: *lease,
    })
}
