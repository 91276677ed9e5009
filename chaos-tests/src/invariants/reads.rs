//! What is read at a revision is what the key held then, and the versions of a key follow each
//! other without a gap.

use super::{Timeline, Violation};
use crate::history::{Answer, Call, History, Operation, Record};

const INVARIANT: &str = "a read shows what the key held at its revision";
const VERSIONS: &str = "the versions of a key follow each other";

/// Judges every look at a key.
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let reads = history.operations.iter().flat_map(|operation| looks(history, timeline, operation));
    let mut keys: Vec<&str> = timeline.all().map(|(key, ..)| key).collect();
    keys.dedup();
    reads.chain(keys.into_iter().filter_map(|key| versions(timeline, key))).collect()
}

fn looks(history: &History, timeline: &Timeline, operation: &Operation) -> Vec<Violation> {
    let (revision, records) = match &operation.answer {
        Answer::Found { revision, records } => (*revision, records),
        Answer::Written { revision, previous: Some(previous) } => (*revision - 1, previous),
        _ => return Vec::new(),
    };
    let looked = operation.call.keys().iter().zip(records);
    looked
        .filter_map(|(key, record)| {
            let look = Look { history, timeline, operation, key, revision };
            look.judge(record.as_ref())
        })
        .collect()
}

struct Look<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    operation: &'a Operation,
    key: &'a str,
    revision: i64,
}

impl Look<'_> {
    fn judge(&self, record: Option<&Record>) -> Option<Violation> {
        if let Some(record) = record
            && record.modified > self.revision
        {
            let what = format!("{} @{} shows the later {record}", self.key, self.revision);
            return Some(Violation::new(INVARIANT, what, &[self.operation.completed]));
        }
        let (at, change) = self.timeline.newest(self.key, self.revision)?;
        let fits = match (record, &change.record) {
            (Some(record), Some(_)) => record.modified == at,
            // The record that was read is in the timeline, so the deletion came after it.
            (Some(_), None) => false,
            (None, None) => true,
            (None, Some(last)) => last.lease != 0 || self.may_be_deleted(),
        };
        if fits {
            return None;
        }
        let shown = record.map_or("nothing".to_owned(), ToString::to_string);
        let held = change.record.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        let what =
            format!("{} @{} shows {shown}, but held {held} since @{at}", self.key, self.revision);
        Some(Violation::new(INVARIANT, what, &[change.heard, self.operation.completed]))
    }

    /// Whether a delete of unknown outcome may have struck without anybody seeing it.
    fn may_be_deleted(&self) -> bool {
        self.history.operations.iter().any(|other| {
            other.is_open()
                && other.invoked < self.operation.completed
                && matches!(&other.call, Call::Delete { key } if key == self.key)
        })
    }
}

fn versions(timeline: &Timeline, key: &str) -> Option<Violation> {
    let mut before: Option<&Record> = None;
    for (_, change) in timeline.changes(key) {
        let Some(record) = &change.record else {
            before = None;
            continue;
        };
        let first = record.version == 1;
        let follows = match before {
            _ if first => record.create == record.modified,
            Some(before) if before.create == record.create => {
                let written = record.version - before.version;
                written >= 1 && written <= record.modified - before.modified
            }
            // Something in between was not seen.
            _ => record.create < record.modified && record.version > 1,
        };
        if !follows {
            let before = before.map_or("nothing".to_owned(), ToString::to_string);
            let what = format!("{key}: {record} after {before}");
            return Some(Violation::new(VERSIONS, what, &[change.heard]));
        }
        before = Some(record);
    }
    None
}
