//! openraft's own suite for log stores and state machines, on ours.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::log::LogStore;
use super::snapshot::SnapshotStore;
use super::state_machine::StateMachine;
use super::types::TypeConfig;
use crate::auth::SimpleTokens;
use crate::host::Host;
use crate::lease::Leases;
use crate::watch::Hub;

struct Builder;

/// Where they lie. Waits until the state is closed: RocksDB must not be at work when the process ends.
struct Place {
    _dir: TempDir,
    ended: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        futures::executor::block_on(self.ended.cancelled());
    }
}

fn open() -> io::Result<(Place, LogStore, StateMachine)> {
    let dir = tempfile::tempdir()?;
    let log = LogStore::open(&dir.path().join("log"), true, Default::default(), Host::Machine)?;
    let snapshots = SnapshotStore::open(dir.path().join("snap"))?;
    let options = pintle_mvcc::Options::default();
    let state = dir.path().join("state");
    let tokens = Arc::new(SimpleTokens::new(Duration::ZERO, 0));
    let machine = StateMachine::open(
        &state,
        options,
        snapshots,
        |reader| Hub::new(reader, Default::default()),
        Leases::new(),
        tokens,
    )?;
    let ended = machine.shared().ended.clone();
    Ok((Place { _dir: dir, ended }, log, machine))
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Place> for Builder {
    async fn build(&self) -> Result<(Place, LogStore, StateMachine), StorageError<TypeConfig>> {
        Ok(open().expect("opens in a temporary folder"))
    }
}

#[test]
fn log_and_state_machine_pass_the_suite_of_openraft() {
    TypeConfig::run(async { Suite::test_all(Builder).await.expect("the suite passes") });
}
