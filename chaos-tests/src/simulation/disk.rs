//! The disk under one member's log: how long a sync takes, whether it fails, and what a crash
//! leaves of a member's files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_store::simulation::{Disk, Pending};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::crash::{copy_consistently, cut};

#[derive(Debug)]
struct Inner {
    rng: StdRng,
    /// Bytes of each write-ahead file that a sync has covered.
    durable: BTreeMap<String, u64>,
    slow: bool,
    failing: bool,
}

/// One incarnation's log disk.
#[derive(Clone, Debug)]
pub(super) struct LogDisk {
    /// The member's folder.
    dir: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

impl LogDisk {
    /// What is there already is safe: an earlier crash left it.
    pub(super) fn new(dir: PathBuf, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let inner = Inner { rng, durable: BTreeMap::new(), slow: false, failing: false };
        let disk = Self { dir, inner: Arc::new(Mutex::new(inner)) };
        // There is no folder before the first start.
        disk.inner.lock().durable = disk.written().unwrap_or_default();
        disk
    }

    /// Makes syncs take hundreds of milliseconds, or no longer.
    pub(super) fn slow(&self, slow: bool) {
        self.inner.lock().slow = slow;
    }

    /// Makes the next sync fail.
    pub(super) fn fail(&self) {
        self.inner.lock().failing = true;
    }

    fn delay(&self) -> Duration {
        let mut inner = self.inner.lock();
        let millis = if inner.slow {
            inner.rng.random_range(50..600)
        } else if inner.rng.random_bool(0.02) {
            inner.rng.random_range(5..80)
        } else {
            inner.rng.random_range(0..3)
        };
        Duration::from_millis(millis)
    }

    fn written(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut written = BTreeMap::new();
        for entry in fs::read_dir(self.dir.join("member/log"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_write_ahead(&name) {
                written.insert(name, entry.metadata()?.len());
            }
        }
        Ok(written)
    }

    async fn settle(self) -> io::Result<()> {
        let written = self.written()?;
        tokio::time::sleep(self.delay()).await;
        let mut inner = self.inner.lock();
        if inner.failing {
            return Err(io::Error::other("simulated: the disk failed"));
        }
        inner.durable.extend(written);
        Ok(())
    }

    /// Copies the member's files as a crash now would leave them.
    pub(super) fn crash_into(&self, target: &Path) -> io::Result<()> {
        copy_consistently(&self.dir.join("member"), &target.join("member"))?;
        let log = target.join("member/log");
        for (name, written) in self.written()? {
            let mut inner = self.inner.lock();
            let durable = inner.durable.get(&name).copied().unwrap_or(0);
            if durable >= written {
                continue;
            }
            let kept = inner.rng.random_range(durable..=written);
            let torn = kept > durable && inner.rng.random_bool(0.5);
            drop(inner);
            cut(&log.join(name), durable, kept, torn)?;
        }
        Ok(())
    }
}

impl Disk for LogDisk {
    fn sync(&self) -> Pending<io::Result<()>> {
        Box::pin(self.clone().settle())
    }
}

fn is_write_ahead(name: &str) -> bool {
    name.strip_suffix(".wal").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
}
