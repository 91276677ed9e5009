//! What caches and buffers may take where the process has a limit: about a quarter of it together. RocksDB needs
//! more while it writes buffers out, and requests need the rest. Without a limit, or with a large one, each has its usual size.

use std::fs;
use std::path::{Path, PathBuf};

/// Caches are never made smaller than this: they would be of no use.
const SHARE_MIN: usize = 1 << 20;

/// How much memory the process may use, if somebody limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimit(Option<u64>);

impl MemoryLimit {
    /// A limit of so many bytes.
    pub fn of(bytes: u64) -> Self {
        Self(Some(bytes))
    }

    /// The limit of this process's control group (version 2 or 1) and of those around it.
    pub fn of_this_process() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self(limit(Path::new("/sys/fs/cgroup"), &groups))
    }

    /// The bytes; `None` where there is no limit.
    pub fn bytes(self) -> Option<u64> {
        self.0
    }

    /// `usual`, or the `part`th part of the limit if that is less.
    pub(crate) fn share(self, usual: usize, part: u64) -> usize {
        let Some(limit) = self.0 else { return usual };
        let share = usize::try_from(limit / part).unwrap_or(usize::MAX);
        usual.min(share.max(SHARE_MIN))
    }

    pub(crate) fn state(self, usual: pintle_mvcc::Options) -> pintle_mvcc::Options {
        pintle_mvcc::Options {
            block_cache_bytes: self.share(usual.block_cache_bytes, 12),
            write_buffer_bytes: self.share(usual.write_buffer_bytes, 32),
            recent_bytes: self.share(usual.recent_bytes, 64),
            pending_bytes: self.share(usual.pending_bytes, 64),
            ..usual
        }
    }
}

/// The smallest limit over the groups of `/proc/self/cgroup` and all around them.
fn limit(root: &Path, groups: &str) -> Option<u64> {
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let memory = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == "memory").then_some(path)
    });
    let second = unified.and_then(|path| smallest(root, root, path, "memory.max"));
    let folder = root.join("memory");
    let first = memory.and_then(|path| smallest(&folder, &folder, path, "memory.limit_in_bytes"));
    first.into_iter().chain(second).min()
}

fn smallest(root: &Path, top: &Path, path: &str, file: &str) -> Option<u64> {
    let folder: PathBuf = root.join(path.trim_start_matches('/'));
    let around = folder.ancestors().take_while(|folder| folder.starts_with(top));
    // "max", and what version 1 writes for no limit, are none.
    let limits = around.filter_map(|folder| {
        let limit: u64 = fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()?;
        (limit < 1 << 60).then_some(limit)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn the_smallest_limit_around_counts() {
        let root = tempfile::tempdir().expect("temporary folder");
        write(root.path(), "a/memory.max", "2000\n");
        write(root.path(), "a/b/memory.max", "max\n");
        write(root.path(), "a/b/c/memory.max", "3000\n");
        assert_eq!(limit(root.path(), "0::/a/b/c\n"), Some(2_000));
        assert_eq!(limit(root.path(), "0::/\n"), None);
        assert_eq!(limit(root.path(), ""), None);
    }

    #[test]
    fn version_1_is_read_where_it_is_mounted() {
        let root = tempfile::tempdir().expect("temporary folder");
        write(root.path(), "memory/memory.limit_in_bytes", "9223372036854771712\n");
        write(root.path(), "memory/job/memory.limit_in_bytes", "4000\n");
        let groups = "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n";
        assert_eq!(limit(root.path(), groups), Some(4_000));
        assert_eq!(limit(root.path(), "4:memory:/\n"), None);
    }

    #[test]
    fn shares_are_of_the_limit_and_never_more_than_usual() {
        let none = MemoryLimit::default();
        assert_eq!(none.share(64 << 20, 16), 64 << 20);
        assert_eq!(MemoryLimit::of(128 << 20).share(64 << 20, 16), 8 << 20);
        assert_eq!(MemoryLimit::of(8 << 30).share(64 << 20, 16), 64 << 20);
        assert_eq!(MemoryLimit::of(1).share(64 << 20, 16), SHARE_MIN);
        let usual = pintle_mvcc::Options::default();
        let state = MemoryLimit::of(120 << 20).state(usual.clone());
        assert_eq!(state.block_cache_bytes, 10 << 20);
        assert_eq!(none.state(usual.clone()).block_cache_bytes, usual.block_cache_bytes);
    }
}
