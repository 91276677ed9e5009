//! A stopped member's data folder, for people who debug.

use std::io;
use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use pintle_mvcc::Fault;
use pintle_proto::raft::{Command, CommandBatch, MemberEntry};
use prost::Message;

use crate::consensus::convert::membership_to_pb;
use crate::consensus::log::offline;

/// One entry of the Raft log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its term.
    pub term: u64,
    /// Its place.
    pub index: u64,
    /// What it says.
    pub content: LogContent,
}

/// What an entry of the Raft log says.
#[derive(Clone, Debug)]
pub enum LogContent {
    /// A new leader's first entry.
    Blank,
    /// Writes.
    Commands(Vec<Command>),
    /// Who belongs to the cluster: the voters (two sets while they change), and everybody.
    Membership {
        /// Ids.
        voters: Vec<Vec<u64>>,
        /// All members.
        members: Vec<MemberEntry>,
    },
    /// Bytes that this version does not understand.
    Unreadable,
}

/// Tells the entries between two indexes of the log under `log_dir` (a member's `wal-dir`, or
/// `member/log` in its data folder), both included, until `tell` says `false`.
pub fn raft_log(
    log_dir: &Path,
    from: u64,
    to: u64,
    mut tell: impl FnMut(LogEntry) -> bool,
) -> io::Result<()> {
    offline::entries(log_dir, from, to, |entry| {
        let (term, index) = (entry.log_id().committed_leader_id().term, entry.index());
        let content = match entry.payload {
            EntryPayload::Blank => LogContent::Blank,
            EntryPayload::Normal(batch) => match CommandBatch::decode(batch.0) {
                Ok(batch) => LogContent::Commands(batch.commands),
                Err(_) => LogContent::Unreadable,
            },
            EntryPayload::Membership(membership) => {
                let membership = membership_to_pb(&membership);
                let voters = membership.configs.into_iter().map(|set| set.ids).collect();
                LogContent::Membership { voters, members: membership.members }
            }
        };
        tell(LogEntry { term, index, content })
    })
}

/// The folder of the state that a member uses.
pub fn state_folder(data_dir: &Path) -> Result<PathBuf, Fault> {
    pintle_mvcc::offline::active_folder(&data_dir.join("member/state"))
}
