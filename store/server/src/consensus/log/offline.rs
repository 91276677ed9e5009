//! The log of a member that is not running: made for a restored state, cut off from a lost cluster,
//! or read by people who debug.

use std::io;
use std::path::Path;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;

use super::super::types::{Entry, LogId, Membership, TypeConfig, Vote};
use super::frame::Frame;
use super::segments::{Contents, Segments, Writing, inspect};
use super::{import, last, read};

type Leader = openraft::alias::LeaderIdOf<TypeConfig>;

const WRITING: Writing = Writing { sync: true, allocate: true };

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Leader::new(term, 0).to_committed(), index)
}

/// A log that begins after `start`: everything up to there is in the state. A member that joins
/// later cannot be served from it, and gets the state.
pub(crate) fn begin(dir: &Path, start: LogId, first_member: u64) -> io::Result<()> {
    let (mut segments, Contents { meta, .. }) = Segments::open(dir, WRITING)?;
    let term = start.committed_leader_id().term;
    let mut frame = Frame::new();
    frame.vote(&Vote { leader_id: Leader::new(term, first_member), committed: false })?;
    frame.purged(&start)?;
    frame.committed(&start)?;
    segments.write(&mut frame, &meta).map(drop)
}

/// Appends `membership` to a log, as if a leader had: it counts from the next start on. Everything
/// in the log before it stays, since any of it may have been acknowledged. `false`: the log is empty.
pub(crate) fn append_membership(dir: &Path, membership: &Membership) -> io::Result<bool> {
    import::import(dir)?;
    let (mut segments, Contents { meta, places }) = Segments::open(dir, WRITING)?;
    let Some(last) = last(&places)?.max(meta.purged) else { return Ok(false) };
    let voted = meta.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.committed_leader_id().term);
    let payload = EntryPayload::Membership(membership.clone());
    let entry = Entry::new(log_id(term, last.index() + 1), payload);
    let mut frame = Frame::new();
    frame.entry(&entry)?;
    segments.write(&mut frame, &meta)?;
    Ok(true)
}

/// Tells the entries between two indexes, both included, until `tell` says `false`.
pub(crate) fn entries(
    dir: &Path,
    from: u64,
    to: u64,
    mut tell: impl FnMut(Entry) -> bool,
) -> io::Result<()> {
    if import::is_earlier(dir) {
        let what = "the log was written by an earlier version: start the member once";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    let Contents { places, .. } = inspect(dir)?;
    for place in places.range(from, to.saturating_add(1)) {
        if !tell(read(place)?) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::super::types::Node;
    use super::*;

    fn alone() -> Membership {
        let nodes = BTreeMap::from([(7, Node::default())]);
        Membership::new(vec![BTreeSet::from([7])], nodes).expect("valid")
    }

    #[test]
    fn a_log_begins_anywhere_and_goes_on_after_it() {
        let dir = tempfile::tempdir().expect("temporary folder");
        begin(dir.path(), log_id(3, 40), 7).expect("written");
        assert!(append_membership(dir.path(), &alone()).expect("written"));
        let mut told = Vec::new();
        let tell = |entry: Entry| {
            told.push(entry.log_id());
            true
        };
        entries(dir.path(), 0, u64::MAX, tell).expect("readable");
        assert_eq!(told, [log_id(3, 41)]);
    }

    #[test]
    fn an_empty_log_has_no_cluster_to_leave() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert!(!append_membership(dir.path(), &alone()).expect("readable"));
    }
}
