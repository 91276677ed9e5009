//! Whether what clients and watchers saw can have happened. Pure: histories in, violations out.
//!
//! Every write puts a value that no other write puts, so that an event tells which write it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How a write ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged with this revision.
    Acknowledged(i64),
    /// It was refused: certainly not applied.
    Refused,
    /// It may have been applied or not.
    Unknown,
}

/// A write and what became of it. Times are ticks of one clock that all clients share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct Write {
    pub changes: Vec<Change>,
    pub started: u64,
    pub ended: u64,
    pub outcome: Outcome,
}

/// A key and its new value; `None` when it was deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "said above")]
pub struct Change {
    pub key: String,
    pub value: Option<String>,
}

/// A linearizable read of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct Read {
    pub key: String,
    pub value: Option<String>,
    pub revision: i64,
    pub started: u64,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct Seen {
    pub revision: i64,
    pub change: Change,
}

/// Everything that was seen of one run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// By all clients.
    pub writes: Vec<Write>,
    /// By all clients.
    pub reads: Vec<Read>,
    /// The whole history, read at the end.
    pub history: Vec<Seen>,
    /// What each watcher got while it all happened.
    pub watchers: Vec<Vec<Seen>>,
    /// All keys and values at the end.
    pub state: BTreeMap<String, String>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named")]
pub enum Violation {
    /// An acknowledged write is not in the history as it was acknowledged.
    Lost { revision: i64, expected: Vec<Change>, found: Vec<Change> },
    /// A change that nobody wrote, or that was refused, or that is there twice.
    Invented { revision: i64, found: Vec<Change> },
    /// A write that began after another had been acknowledged has an older revision.
    OutOfOrder { earlier: i64, later: i64 },
    /// A read does not see what had been acknowledged before it began.
    Stale { read: Read, acknowledged: i64 },
    /// A read saw another value than the history has at its revision.
    Misread { read: Read, expected: Option<String> },
    /// A watcher's events are not the history's.
    Missed { watcher: usize, at: usize, expected: Option<Seen>, got: Option<Seen> },
    /// The state at the end is not what the history leads to.
    State { key: String, expected: Option<String>, found: Option<String> },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Everything that is wrong with a run.
pub fn check(run: &Run) -> Vec<Violation> {
    let history = by_revision(&run.history);
    let mut violations = acknowledged(run, &history);
    violations.extend(explained(run, &history));
    violations.extend(ordered(run));
    violations.extend(reads(run));
    violations.extend(watchers(run));
    violations.extend(state(run));
    violations
}

type History<'r> = BTreeMap<i64, BTreeSet<&'r Change>>;

fn by_revision(seen: &[Seen]) -> History<'_> {
    let mut history = History::new();
    for event in seen {
        history.entry(event.revision).or_default().insert(&event.change);
    }
    history
}

fn owned(changes: &BTreeSet<&Change>) -> Vec<Change> {
    changes.iter().map(|change| (*change).clone()).collect()
}

/// Acknowledged writes are there, whole, at their revision.
fn acknowledged(run: &Run, history: &History<'_>) -> Vec<Violation> {
    let none = BTreeSet::new();
    let lost = |write: &Write| {
        let Outcome::Acknowledged(revision) = write.outcome else { return None };
        let found = history.get(&revision).unwrap_or(&none);
        let expected: BTreeSet<&Change> = write.changes.iter().collect();
        (expected != *found).then(|| Violation::Lost {
            revision,
            expected: owned(&expected),
            found: owned(found),
        })
    };
    run.writes.iter().filter_map(lost).collect()
}

/// Every revision is one write that was made and not refused, whole, and no write is there twice.
fn explained(run: &Run, history: &History<'_>) -> Vec<Violation> {
    let mut possible: BTreeMap<&Change, &Write> = BTreeMap::new();
    for write in &run.writes {
        let puts = write.changes.iter().filter(|change| change.value.is_some());
        possible.extend(puts.map(|put| (put, write)));
    }
    let mut living: BTreeSet<&str> = BTreeSet::new();
    let mut violations = Vec::new();
    for (revision, changes) in history {
        let put = changes.iter().find(|change| change.value.is_some());
        let write = put.and_then(|put| possible.remove(put));
        let explained = write.is_some_and(|write| match write.outcome {
            Outcome::Acknowledged(at) => at == *revision,
            Outcome::Unknown => is_whole(write, changes, &living),
            Outcome::Refused => false,
        });
        if !explained {
            let found = owned(changes);
            violations.push(Violation::Invented { revision: *revision, found });
        }
        for change in changes {
            match &change.value {
                Some(_) => living.insert(&change.key),
                None => living.remove(change.key.as_str()),
            };
        }
    }
    violations
}

/// Whether a write that nobody acknowledged is there with all that it changes: a delete of a key that
/// is not there changes nothing.
fn is_whole(write: &Write, found: &BTreeSet<&Change>, living: &BTreeSet<&str>) -> bool {
    let changes = |change: &&Change| change.value.is_some() || living.contains(change.key.as_str());
    write.changes.iter().filter(changes).collect::<BTreeSet<&Change>>() == *found
}

/// Revisions follow real time.
fn ordered(run: &Run) -> Vec<Violation> {
    let mut ends: Vec<(u64, i64)> = Vec::new();
    let mut begins: Vec<(u64, i64)> = Vec::new();
    for write in &run.writes {
        if let Outcome::Acknowledged(revision) = write.outcome {
            ends.push((write.ended, revision));
            begins.push((write.started, revision));
        }
    }
    begins.sort_unstable();
    let newest = newest_before(ends);
    let wrong = |&(started, later): &(u64, i64)| {
        let earlier = newest(started);
        (earlier >= later).then_some(Violation::OutOfOrder { earlier, later })
    };
    begins.iter().filter_map(wrong).collect()
}

/// The newest revision that had been acknowledged before a moment.
fn newest_before(mut ends: Vec<(u64, i64)>) -> impl Fn(u64) -> i64 {
    ends.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut ends {
        newest = newest.max(*revision);
        *revision = newest;
    }
    move |moment| {
        let before = ends.partition_point(|(ended, _)| *ended < moment);
        before.checked_sub(1).map_or(0, |last| ends[last].1)
    }
}

fn reads(run: &Run) -> Vec<Violation> {
    let acknowledged = |write: &Write| match write.outcome {
        Outcome::Acknowledged(revision) => Some((write.ended, revision)),
        Outcome::Refused | Outcome::Unknown => None,
    };
    let newest = newest_before(run.writes.iter().filter_map(acknowledged).collect());
    let mut by_key: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for event in &run.history {
        by_key.entry(&event.change.key).or_default().push(event);
    }
    let mut violations = Vec::new();
    for read in &run.reads {
        let acknowledged = newest(read.started);
        if read.revision < acknowledged {
            violations.push(Violation::Stale { read: read.clone(), acknowledged });
        }
        let events = by_key.get(read.key.as_str()).map_or(&[][..], Vec::as_slice);
        let until = events.partition_point(|event| event.revision <= read.revision);
        let expected = until.checked_sub(1).and_then(|last| events[last].change.value.clone());
        if read.value != expected {
            violations.push(Violation::Misread { read: read.clone(), expected });
        }
    }
    violations
}

/// Every watcher got the whole history, in order, once.
fn watchers(run: &Run) -> Vec<Violation> {
    let missed = |(watcher, seen): (usize, &Vec<Seen>)| {
        let length = seen.len().max(run.history.len());
        let at = (0..length).find(|at| seen.get(*at) != run.history.get(*at))?;
        let (expected, got) = (run.history.get(at).cloned(), seen.get(at).cloned());
        Some(Violation::Missed { watcher, at, expected, got })
    };
    run.watchers.iter().enumerate().filter_map(missed).collect()
}

fn state(run: &Run) -> Vec<Violation> {
    let mut expected = BTreeMap::new();
    for Seen { change: Change { key, value }, .. } in &run.history {
        match value {
            Some(value) => expected.insert(key, value),
            None => expected.remove(key),
        };
    }
    let keys: BTreeSet<&String> = expected.keys().copied().chain(run.state.keys()).collect();
    let wrong = |key: &String| {
        let (expected, found) = (expected.get(key).copied(), run.state.get(key));
        (expected != found).then(|| Violation::State {
            key: key.clone(),
            expected: expected.cloned(),
            found: found.cloned(),
        })
    };
    keys.into_iter().filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: &str) -> Change {
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        Change { key: key.to_owned(), value }
    }

    fn seen(revision: i64, key: &str, value: &str) -> Seen {
        Seen { revision, change: change(key, value) }
    }

    fn write(times: (u64, u64), outcome: Outcome, changes: &[(&str, &str)]) -> Write {
        let changes = changes.iter().map(|(key, value)| change(key, value)).collect();
        Write { changes, started: times.0, ended: times.1, outcome }
    }

    /// Two writes that were acknowledged, one that was refused, and three of which nobody knows: one
    /// was applied, one was not, and one found the key gone that it deletes.
    fn sound() -> Run {
        let history = vec![
            seen(2, "a", "1"),
            seen(3, "a", ""),
            seen(3, "b", "2"),
            seen(4, "a", "4"),
            seen(5, "b", "6"),
        ];
        let read = |key: &str, value: &str, revision, started| {
            let Change { key, value } = change(key, value);
            Read { key, value, revision, started }
        };
        Run {
            writes: vec![
                write((1, 2), Outcome::Acknowledged(2), &[("a", "1")]),
                write((3, 5), Outcome::Acknowledged(3), &[("a", ""), ("b", "2")]),
                write((6, 7), Outcome::Refused, &[("a", "3")]),
                write((6, 8), Outcome::Unknown, &[("a", "4")]),
                write((9, 10), Outcome::Unknown, &[("a", "5")]),
                write((9, 11), Outcome::Unknown, &[("c", ""), ("b", "6")]),
            ],
            reads: vec![read("a", "1", 2, 3), read("a", "", 3, 4), read("b", "2", 4, 9)],
            watchers: vec![history.clone(), history.clone()],
            state: BTreeMap::from([
                ("a".to_owned(), "4".to_owned()),
                ("b".to_owned(), "6".to_owned()),
            ]),
            history,
        }
    }

    /// The violations of a run that was broken in one way, by name.
    fn convicted(broken: impl FnOnce(&mut Run)) -> Vec<String> {
        let mut run = sound();
        broken(&mut run);
        let mut names: Vec<String> = check(&run)
            .iter()
            .map(|violation| {
                let text = violation.to_string();
                text.split_whitespace().next().unwrap_or_default().to_owned()
            })
            .collect();
        names.dedup();
        names
    }

    #[test]
    fn a_sound_run_is_acquitted() {
        assert_eq!(check(&sound()), []);
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_is_lost() {
        let broken = |run: &mut Run| {
            run.history.retain(|event| event.revision != 2);
            run.watchers.clear();
            run.reads.clear();
        };
        assert_eq!(convicted(broken), ["Lost"]);
    }

    #[test]
    fn half_a_write_is_a_lost_write() {
        let broken = |run: &mut Run| {
            run.history.remove(1);
            run.watchers.clear();
            run.reads.clear();
        };
        assert_eq!(convicted(broken), ["Lost"]);
    }

    #[test]
    fn what_nobody_wrote_or_what_was_refused_is_invented() {
        for event in [seen(6, "a", "9"), seen(6, "a", "3"), seen(6, "a", "1")] {
            let broken = |run: &mut Run| {
                let value = event.change.value.clone().expect("a put");
                run.state.insert("a".to_owned(), value);
                run.watchers.iter_mut().for_each(|watcher| watcher.push(event.clone()));
                run.history.push(event);
            };
            assert_eq!(convicted(broken), ["Invented"]);
        }
    }

    #[test]
    fn half_a_write_is_invented_when_nobody_knows_of_it() {
        let broken = |run: &mut Run| run.writes[5].changes[0].key = "a".to_owned();
        assert_eq!(convicted(broken), ["Invented"]);
    }

    #[test]
    fn revisions_follow_real_time() {
        let broken = |run: &mut Run| (run.writes[0].started, run.writes[0].ended) = (6, 7);
        assert_eq!(convicted(broken), ["OutOfOrder"]);
    }

    #[test]
    fn a_read_sees_what_was_acknowledged_before_it() {
        let stale = |run: &mut Run| run.reads[0].started = 6;
        assert_eq!(convicted(stale), ["Stale"]);
        let wrong = |run: &mut Run| run.reads[0].value = Some("7".to_owned());
        assert_eq!(convicted(wrong), ["Misread"]);
    }

    #[test]
    fn a_watcher_sees_everything_once_and_in_order() {
        let breaks: [fn(&mut Vec<Seen>); 3] = [
            |seen| drop(seen.remove(2)),
            |seen| seen.swap(0, 3),
            |seen| seen.push(seen[3].clone()),
        ];
        for broken in breaks {
            assert_eq!(convicted(|run| broken(&mut run.watchers[1])), ["Missed"]);
        }
    }

    #[test]
    fn the_state_is_what_the_history_leads_to() {
        let gone = |run: &mut Run| drop(run.state.remove("b"));
        assert_eq!(convicted(gone), ["State"]);
        let stranger = |run: &mut Run| drop(run.state.insert("c".to_owned(), "1".to_owned()));
        assert_eq!(convicted(stranger), ["State"]);
    }
}
