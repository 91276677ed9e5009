//! How much room the file system of the data folder has.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A file system's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes altogether.
    pub total: u64,
    /// Bytes that this process may still use.
    pub free: u64,
}

type Look = dyn Fn(&Path) -> io::Result<Space> + Send + Sync;

/// Where a member learns how much room there is; a test gives its own.
#[derive(Clone)]
pub struct SpaceProbe(Arc<Look>);

impl SpaceProbe {
    /// One that asks `look` about the data folder.
    pub fn new(look: impl Fn(&Path) -> io::Result<Space> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    pub(crate) fn look(&self, dir: &Path) -> io::Result<Space> {
        (self.0)(dir)
    }
}

impl Default for SpaceProbe {
    fn default() -> Self {
        Self::new(of_file_system)
    }
}

impl fmt::Debug for SpaceProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpaceProbe")
    }
}

fn of_file_system(dir: &Path) -> io::Result<Space> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Ok(Space { total: bytes(stat.blocks()), free: bytes(stat.blocks_available()) })
}

/// When the disk counts as full.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// Less than this free raises NOSPACE; `None`: a twentieth of the disk, half a GiB at the most.
    pub reserve_bytes: Option<u64>,
    /// How often to look.
    pub check_every: Duration,
    /// How to look.
    pub probe: SpaceProbe,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            reserve_bytes: None,
            check_every: Duration::from_secs(5),
            probe: SpaceProbe::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_file_system_has_a_size() {
        let space = SpaceProbe::default().look(Path::new("/")).expect("the root is there");
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
        assert!(SpaceProbe::default().look(Path::new("/no/such/folder")).is_err());
    }
}
