//! The adapters between openraft and this store. openraft is an alpha: what it calls us through
//! stays in this folder, so that a change of its interface does too.

mod codec;
pub(crate) mod convert;
pub(crate) mod log;
pub(crate) mod network;
mod news;
pub(crate) mod snapshot;
pub(crate) mod snapshot_donor;
pub(crate) mod snapshot_resume;
pub(crate) mod snapshot_stream;
pub(crate) mod state_machine;
#[cfg(test)]
mod suite;
mod types;

pub(crate) use codec::{decode, encode};
pub(crate) use types::{Batch, LogId, Membership, Node, Raft, StoredMembership, TypeConfig, Vote};
