//! From a snapshot to the data folder of a founding member of a new cluster.
//!
//! All founders are restored from the same snapshot. Each begins with the same state at the same
//! place of an otherwise empty log, with the founders as members, so that they agree from the
//! start, and whoever joins later gets the state and not a log that lacks it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pintle_mvcc::{Fault, Mvcc};

use crate::archive::{Archive, ArchiveError};
use crate::config::Config;
use crate::consensus::log::offline;
use crate::consensus::state_machine::AppliedState;
use crate::consensus::{self, Membership, StoredMembership};
use crate::identity::Identity;

/// What a restored member is to be.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Name, data folder, founders and token are read; the rest is not.
    pub config: Config,
    /// How far the revision is raised, so that no client sees time go back.
    pub bump_revision: i64,
    /// Whether everything before the raised revision counts as compacted, so that watchers start
    /// afresh.
    pub mark_compacted: bool,
    /// Takes a snapshot without looking at its checksum.
    pub skip_hash_check: bool,
}

/// Why a snapshot was not restored. Nothing of the data folder is in use then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot is none, or damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Data would be overwritten.
    #[error("data-dir {0:?} not empty or could not be read")]
    NotEmpty(PathBuf),
    /// The founders do not include this member.
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NotInCluster(String),
    /// The founders name other addresses for this member.
    #[error(
        "--initial-cluster has {name}={listed} but missing from --initial-advertise-peer-urls={advertised}"
    )]
    OtherUrls {
        /// This member.
        name: String,
        /// What the list says.
        listed: String,
        /// What the member says.
        advertised: String,
    },
    /// The state of the snapshot cannot be opened.
    #[error("the state of the snapshot: {0}")]
    State(#[from] Fault),
    /// A file of the data folder.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> RestoreError {
    move |source| RestoreError::Io { what, source }
}

/// The place in the log at which a restored cluster begins.
const START: (u64, u64) = (1, 1);

/// Restores one founder. Runs long for a large snapshot, and blocks.
pub fn restore(snapshot: &Path, restore: &Restore) -> Result<(), RestoreError> {
    let config = &restore.config;
    let identity = identity(config)?;
    check_empty(&config.data_dir)?;
    let archive = Archive::open(snapshot)?;
    if !restore.skip_hash_check {
        archive.verify()?;
    }
    let member = config.data_dir.join("member");
    let state = member.join("state");
    archive.unpack(&state.join("generation-0"))?;
    let start = offline::log_id(START.0, START.1);
    let voters = vec![identity.founders.keys().copied().collect()];
    let membership = Membership::new(voters, identity.founders.clone())
        .map_err(|_| RestoreError::NotInCluster(config.name.clone()))?;
    let applied = AppliedState {
        log_id: Some(start),
        membership: StoredMembership::new(Some(start), membership),
    };
    let applied = Bytes::from(consensus::encode(&applied).map_err(failed("encoding"))?);
    let mut mvcc = Mvcc::open(&state, config.state.clone())?;
    mvcc.rebase(restore.bump_revision, restore.mark_compacted, applied)?;
    drop(mvcc);
    let first = identity.founders.keys().next().copied().unwrap_or(identity.member_id);
    offline::begin(&config.log_dir(), start, first).map_err(failed("making the log"))?;
    // Last: without it, nothing of the folder is taken for a member.
    identity.save(&member.join("identity")).map_err(failed("saving the identity"))
}

fn identity(config: &Config) -> Result<Identity, RestoreError> {
    let found = Identity::found(config);
    let identity = found.ok_or_else(|| RestoreError::NotInCluster(config.name.clone()))?;
    let listed = identity.founders.get(&identity.member_id);
    let mut listed = listed.map(|node| node.peer_urls.clone()).unwrap_or_default();
    let mut advertised = config.initial_advertise_peer_urls.clone();
    listed.sort();
    advertised.sort();
    if listed != advertised {
        return Err(RestoreError::OtherUrls {
            name: config.name.clone(),
            listed: listed.join(","),
            advertised: advertised.join(","),
        });
    }
    Ok(identity)
}

fn check_empty(dir: &Path) -> Result<(), RestoreError> {
    let is_empty = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_empty { Ok(()) } else { Err(RestoreError::NotEmpty(dir.to_owned())) }
}
