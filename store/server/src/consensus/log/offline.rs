//! The log of a member that is not running: made for a restored state, cut off from a lost cluster,
//! or read by people who debug.

use std::io;
use std::path::Path;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use rocksdb::{DB, IteratorMode, WriteBatch, WriteOptions};

use super::super::convert::{entry_from_bytes, entry_to_bytes};
use super::super::types::{Entry, LogId, Membership, TypeConfig, Vote};
use super::{
    CF_LOG, CF_META, KEY_COMMITTED, KEY_PURGED, KEY_VOTE, codec, log_cf, meta_cf, open_db,
    read_meta,
};

type Leader = openraft::alias::LeaderIdOf<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Leader::new(term, 0).to_committed(), index)
}

fn write(db: &DB, batch: WriteBatch) -> io::Result<()> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options).map_err(io::Error::other)
}

/// A log that begins after `start`: everything up to there is in the state. A member that joins
/// later cannot be served from it, and gets the state.
pub(crate) fn begin(dir: &Path, start: LogId, first_member: u64) -> io::Result<()> {
    let db = open_db(dir, super::WRITE_BUFFER_BYTES)?;
    let term = start.committed_leader_id().term;
    let vote = Vote { leader_id: Leader::new(term, first_member), committed: false };
    let mut batch = WriteBatch::default();
    batch.put_cf(meta_cf(&db), KEY_VOTE, codec::encode(&vote)?);
    batch.put_cf(meta_cf(&db), KEY_PURGED, codec::encode(&start)?);
    batch.put_cf(meta_cf(&db), KEY_COMMITTED, codec::encode(&start)?);
    write(&db, batch)
}

/// Appends `membership` to a log, as if a leader had: it counts from the next start on. Everything
/// in the log before it stays, since any of it may have been acknowledged. `false`: the log is empty.
pub(crate) fn append_membership(dir: &Path, membership: &Membership) -> io::Result<bool> {
    let db = open_db(dir, super::WRITE_BUFFER_BYTES)?;
    let vote: Option<Vote> = read_meta(&db, KEY_VOTE)?;
    let purged: Option<LogId> = read_meta(&db, KEY_PURGED)?;
    let Some(last) = last(&db)?.max(purged) else { return Ok(false) };
    let voted = vote.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.committed_leader_id().term);
    let payload = EntryPayload::Membership(membership.clone());
    let entry = Entry::new(log_id(term, last.index() + 1), payload);
    let mut batch = WriteBatch::default();
    batch.put_cf(log_cf(&db), entry.index().to_be_bytes(), entry_to_bytes(&entry));
    write(&db, batch)?;
    Ok(true)
}

fn last(db: &DB) -> io::Result<Option<LogId>> {
    match db.iterator_cf(log_cf(db), IteratorMode::End).next() {
        None => Ok(None),
        Some(item) => {
            let (_, value) = item.map_err(io::Error::other)?;
            Ok(Some(entry_from_bytes(Bytes::from(value))?.log_id()))
        }
    }
}

/// Tells the entries between two indexes, both included, until `tell` says `false`.
pub(crate) fn entries(
    dir: &Path,
    from: u64,
    to: u64,
    mut tell: impl FnMut(Entry) -> bool,
) -> io::Result<()> {
    let options = rocksdb::Options::default();
    let db = DB::open_cf_for_read_only(&options, dir, [CF_LOG, CF_META], false)
        .map_err(io::Error::other)?;
    let start = from.to_be_bytes();
    let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
    for item in db.iterator_cf(log_cf(&db), mode) {
        let (_, value) = item.map_err(io::Error::other)?;
        let entry = entry_from_bytes(Bytes::from(value))?;
        if entry.index() > to || !tell(entry) {
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
