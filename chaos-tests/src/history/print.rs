//! A history as text: what a report quotes, and what two runs of a seed are compared by.

use std::fmt;

use super::{Answer, Call, Delivery, Event, History, Moment, Operation, Record};

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}s #{:<6}", self.at.as_secs_f64(), self.order)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.value, self.modified)?;
        write!(f, "(created {}, version {}", self.create, self.version)?;
        if self.lease != 0 {
            write!(f, ", lease {:x}", self.lease)?;
        }
        f.write_str(")")
    }
}

struct Maybe<'a>(&'a Option<Record>);

impl fmt::Display for Maybe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(record) => record.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

fn records(f: &mut fmt::Formatter<'_>, records: &[Option<Record>]) -> fmt::Result {
    for (i, record) in records.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { ", " }, Maybe(record))?;
    }
    Ok(())
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { keys, value, lease } => {
                write!(f, "put {} = {value} lease {lease:x}", keys.join("+"))
            }
            Self::Delete { key } => write!(f, "delete {key}"),
            Self::Swap { key, expected, value, lease } => {
                write!(f, "swap {key} if @{expected} = {value} lease {lease:x}")
            }
            Self::Read { keys } => write!(f, "read {}", keys.join("+")),
            Self::Compact { revision } => write!(f, "compact @{revision}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written { revision, previous } => {
                write!(f, "written @{revision}")?;
                if let Some(previous) = previous {
                    f.write_str(", before: ")?;
                    records(f, previous)?;
                }
                Ok(())
            }
            Self::Found { revision, records: found } => {
                write!(f, "found @{revision}: ")?;
                records(f, found)
            }
            Self::Done => f.write_str("done"),
            Self::NotApplied(reason) => write!(f, "not applied: {reason}"),
            Self::Unknown(reason) => write!(f, "unknown: {reason}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} .. {} client {:<3}", self.invoked, self.completed, self.client)?;
        write!(f, " member {}: {} -> {}", self.member, self.call, self.answer)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{} {} = {}", self.modified, self.key, Maybe(&self.record))?;
        if self.previous.is_some() {
            write!(f, " (before: {})", Maybe(&self.previous))?;
        }
        Ok(())
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events { revision, events } => {
                write!(f, "events up to @{revision}:")?;
                events.iter().try_for_each(|event| write!(f, " {event};"))
            }
            Self::Progress(revision) => write!(f, "progress @{revision}"),
            Self::Compacted(revision) => write!(f, "compacted, on from @{revision}"),
            Self::Resumed(revision) => write!(f, "resumed from @{revision}"),
        }
    }
}

impl History {
    /// Everything in order, one line each.
    pub fn lines(&self) -> Vec<(Moment, String)> {
        let operations = self.operations.iter().map(|one| (one.invoked, one.to_string()));
        let watched = self.watches.iter().flat_map(|watch| {
            let line = |(moment, delivery): &(Moment, Delivery)| {
                (*moment, format!("{moment} watch {} {delivery}", watch.name))
            };
            watch.deliveries.iter().map(line)
        });
        let held = self.holdings.iter().map(|one| {
            let line = format!(
                "{} .. {} client {:<3} holds {} by lease {:x}",
                one.from, one.until, one.client, one.lock, one.lease
            );
            (one.from, line)
        });
        let faults = self.faults.iter();
        let faults = faults.map(|(moment, fault)| (*moment, format!("{moment} FAULT {fault}")));
        let mut lines: Vec<(Moment, String)> =
            operations.chain(watched).chain(held).chain(faults).collect();
        lines.sort();
        lines
    }

    /// The lines from a little before the first of `around` to a little after the last.
    pub fn excerpt(&self, around: &[Moment]) -> String {
        const BEFORE_AND_AFTER: usize = 12;
        let lines = self.lines();
        let place = |moment: &Moment| lines.partition_point(|(one, _)| one < moment);
        let mut chosen = std::collections::BTreeSet::new();
        for at in around.iter().map(place) {
            let end = (at + BEFORE_AND_AFTER).min(lines.len());
            chosen.extend(at.saturating_sub(BEFORE_AND_AFTER)..end);
        }
        let faults = (0..lines.len()).filter(|at| lines[*at].1.contains(" FAULT "));
        chosen.extend(faults);
        chosen.into_iter().map(|at| format!("  {}\n", lines[at].1)).collect()
    }
}
