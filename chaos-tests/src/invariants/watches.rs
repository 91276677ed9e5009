//! A watcher sees every event of its range once, in the order of revisions, all events of a
//! revision together, or is told that they were compacted; progress is never a lie.

use std::collections::BTreeSet;

use super::{Timeline, Violation};
use crate::history::{Call, Delivery, Event, History, Moment, Watch};

const INVARIANT: &str = "a watcher sees every event of its range once, in order";

/// Judges every watcher.
pub fn check(history: &History, timeline: &Timeline) -> Vec<Violation> {
    let judged = history.watches.iter().filter_map(|watch| {
        let mut judge = Judge {
            history,
            timeline,
            watch,
            through: watch.start - 1,
            seen: BTreeSet::new(),
            holes: Vec::new(),
        };
        judge.run().err()
    });
    judged.map(|violation| *violation).collect()
}

struct Judge<'a> {
    history: &'a History,
    timeline: &'a Timeline,
    watch: &'a Watch,
    /// Nothing at or below this may come any more.
    through: i64,
    seen: BTreeSet<(i64, String)>,
    /// What was compacted before it was seen: from, and up to before.
    holes: Vec<(i64, i64)>,
}

type Judged = Result<(), Box<Violation>>;

impl Judge<'_> {
    fn run(&mut self) -> Judged {
        for (moment, delivery) in &self.watch.deliveries {
            match delivery {
                Delivery::Events { revision, events } => self.events(*moment, *revision, events)?,
                Delivery::Progress(revision) => {
                    // A member that is behind may say what another has said before.
                    self.through = self.through.max(*revision);
                }
                Delivery::Compacted(floor) => self.compacted(*moment, *floor)?,
                Delivery::Resumed(from) if *from == self.through + 1 => {}
                Delivery::Resumed(from) => {
                    let what = format!("resumed from @{from} after @{}", self.through);
                    return self.wrong(*moment, &what);
                }
            }
        }
        self.complete()
    }

    fn wrong(&self, moment: Moment, what: &str) -> Judged {
        let what = format!("watch {}: {what}", self.watch.name);
        Err(Box::new(Violation::new(INVARIANT, what, &[moment])))
    }

    fn events(&mut self, moment: Moment, revision: i64, events: &[Event]) -> Judged {
        let mut last = self.through;
        for event in events {
            if event.modified <= self.through {
                let what = format!("{event} comes after @{} was complete", self.through);
                return self.wrong(moment, &what);
            }
            if event.modified < last || event.modified > revision {
                return self.wrong(moment, &format!("{event} is out of order"));
            }
            last = event.modified;
            if !event.key.starts_with(&self.watch.prefix) {
                return self.wrong(moment, &format!("{event} is not watched"));
            }
            if !self.seen.insert((event.modified, event.key.clone())) {
                return self.wrong(moment, &format!("{event} comes twice"));
            }
            self.previous(moment, event)?;
        }
        self.through = self.through.max(revision);
        Ok(())
    }

    /// What the event says was there before.
    fn previous(&self, moment: Moment, event: &Event) -> Judged {
        let Some(previous) = &event.previous else { return Ok(()) };
        match self.timeline.newest(&event.key, event.modified - 1) {
            Some((at, _)) if at != previous.modified => {
                self.wrong(moment, &format!("{event}, but the key changed at @{at}"))
            }
            _ => Ok(()),
        }
    }

    fn compacted(&mut self, moment: Moment, floor: i64) -> Judged {
        if floor <= self.through + 1 {
            let what = format!("told of the floor @{floor}, which lies before @{}", self.through);
            return self.wrong(moment, &what);
        }
        let asked = |one: &crate::history::Operation| {
            one.invoked < moment && one.call == Call::Compact { revision: floor }
        };
        if !self.history.operations.iter().any(asked) {
            return self.wrong(moment, &format!("nobody has asked for the floor @{floor}"));
        }
        self.holes.push((self.through + 1, floor));
        self.through = floor - 1;
        Ok(())
    }

    fn complete(&self) -> Judged {
        for (key, revision, change) in self.timeline.all() {
            let due = revision >= self.watch.start && revision <= self.through;
            let watched = due && key.starts_with(&self.watch.prefix);
            let hole = self.holes.iter().any(|(from, to)| (*from..*to).contains(&revision));
            if watched && !hole && !self.seen.contains(&(revision, key.to_owned())) {
                let what = format!("the change of {key} @{revision} was never seen");
                return self.wrong(change.heard, &what);
            }
        }
        Ok(())
    }
}
