//! A lease ends not before its time: a lock that hangs on one has one holder at a time, and is not
//! taken away from a holder whose lease was extended.

use std::collections::BTreeMap;

use super::{Timeline, Violation};
use crate::history::{Call, Delivery, History, Holding, Moment};

const ONE_HOLDER: &str = "a lock has one holder at a time";
const NOT_EARLY: &str = "a lease does not end before its time";

/// Judges all locks.
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let mut locks: BTreeMap<&str, Vec<&Holding>> = BTreeMap::new();
    for holding in &history.holdings {
        locks.entry(&holding.lock).or_default().push(holding);
    }
    let mut found = Vec::new();
    for holdings in locks.values_mut() {
        holdings.sort_by_key(|holding| holding.from);
        found.extend(holdings.windows(2).filter_map(|pair| overlap(pair[0], pair[1])));
    }
    found.extend(history.holdings.iter().filter_map(|one| ended_early(history, timeline, one)));
    found
}

fn overlap(first: &Holding, second: &Holding) -> Option<Violation> {
    if second.from >= first.until {
        return None;
    }
    let what = format!(
        "client {} took {} while client {} could rely on lease {:x}",
        second.client, first.lock, first.client, first.lease
    );
    Some(Violation::new(ONE_HOLDER, what, &[first.from, second.from, first.until]))
}

fn ended_early(history: &History, timeline: &Timeline, holding: &Holding) -> Option<Violation> {
    let deleted = history.operations.iter().any(|operation| {
        operation.client == holding.client
            && operation.invoked >= holding.from
            && operation.invoked <= holding.until
            && matches!(&operation.call, Call::Delete { key } if *key == holding.lock)
    });
    if deleted {
        return None;
    }
    let (revision, seen) = taken_away(history, timeline, holding)?;
    let what = format!(
        "{} was taken from client {} @{revision}, while it could rely on lease {:x}",
        holding.lock, holding.client, holding.lease
    );
    Some(Violation::new(NOT_EARLY, what, &[holding.from, seen, holding.until]))
}

/// When somebody saw the lock go that hung on the holder's lease, if that was too early.
fn taken_away(history: &History, timeline: &Timeline, holding: &Holding) -> Option<(i64, Moment)> {
    let deliveries = history.watches.iter().flat_map(|watch| &watch.deliveries);
    for (moment, delivery) in deliveries {
        let Delivery::Events { events, .. } = delivery else { continue };
        if *moment >= holding.until {
            continue;
        }
        for event in events.iter().filter(|event| event.record.is_none()) {
            let before = timeline.newest(&event.key, event.modified - 1);
            let lease = before.and_then(|(_, change)| Some(change.record.as_ref()?.lease));
            if event.key == holding.lock && lease == Some(holding.lease) {
                return Some((event.modified, *moment));
            }
        }
    }
    None
}
