//! Usage counters of a control group, on cgroup v1 and v2.

use std::path::Path;

use crate::cgroup::{Version, folder};

/// What a group has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory with caches.
    pub memory: u64,
    /// Memory that cannot be given back easily.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from disk.
    pub major_page_faults: u64,
    /// The memory limit, if there is one.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

/// Limits above this mean that there is none.
const UNLIMITED: u64 = 1 << 60;

/// Reads a group; `/` is the whole machine. `None` when it is not there.
pub fn read(version: Version, group: &str) -> Option<Usage> {
    match version {
        Version::V1 => read_v1(
            &folder(version, "cpuacct", group),
            &folder(version, "memory", group),
            &folder(version, "pids", group),
        ),
        Version::V2 => read_v2(&folder(version, "", group)),
    }
}

fn read_v1(cpu: &Path, memory: &Path, pids: &Path) -> Option<Usage> {
    let stat = std::fs::read_to_string(memory.join("memory.stat")).unwrap_or_default();
    let usage = number(&memory.join("memory.usage_in_bytes")).unwrap_or(0);
    let inactive = keyed(&stat, "total_inactive_file").unwrap_or(0);
    Some(Usage {
        cpu_nanos: number(&cpu.join("cpuacct.usage"))?,
        memory: usage,
        working_set: usage.saturating_sub(inactive),
        rss: keyed(&stat, "total_rss").unwrap_or(0),
        page_faults: keyed(&stat, "total_pgfault").unwrap_or(0),
        major_page_faults: keyed(&stat, "total_pgmajfault").unwrap_or(0),
        memory_limit: number(&memory.join("memory.limit_in_bytes"))
            .filter(|limit| *limit < UNLIMITED),
        pids: number(&pids.join("pids.current")).unwrap_or(0),
    })
}

fn read_v2(group: &Path) -> Option<Usage> {
    let cpu = std::fs::read_to_string(group.join("cpu.stat")).ok()?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    // The root group has no memory.current.
    let usage = number(&group.join("memory.current"))
        .unwrap_or_else(|| keyed(&stat, "anon").unwrap_or(0) + keyed(&stat, "file").unwrap_or(0));
    Some(Usage {
        cpu_nanos: keyed(&cpu, "usage_usec")? * 1000,
        memory: usage,
        working_set: usage.saturating_sub(keyed(&stat, "inactive_file").unwrap_or(0)),
        rss: keyed(&stat, "anon").unwrap_or(0),
        page_faults: keyed(&stat, "pgfault").unwrap_or(0),
        major_page_faults: keyed(&stat, "pgmajfault").unwrap_or(0),
        memory_limit: number(&group.join("memory.max")),
        pids: number(&group.join("pids.current")).unwrap_or(0),
    })
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn version_1_counters_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpuacct.usage", "5000\n"),
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                (
                    "memory.stat",
                    "inactive_file 1\ntotal_inactive_file 300\ntotal_rss 600\ntotal_pgfault 7\n",
                ),
                ("pids.current", "3\n"),
            ],
        );
        let usage = read_v1(dir.path(), dir.path(), dir.path()).unwrap();
        assert_eq!(
            (usage.cpu_nanos, usage.memory, usage.working_set, usage.rss),
            (5000, 1000, 700, 600)
        );
        assert_eq!((usage.memory_limit, usage.page_faults, usage.pids), (None, 7, 3));
    }

    #[test]
    fn version_2_counters_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpu.stat", "usage_usec 12\nuser_usec 5\n"),
                ("memory.current", "1000\n"),
                ("memory.max", "4096\n"),
                ("memory.stat", "anon 600\nfile 400\ninactive_file 100\npgfault 9\n"),
            ],
        );
        let usage = read_v2(dir.path()).unwrap();
        assert_eq!(
            (usage.cpu_nanos, usage.working_set, usage.memory_limit),
            (12_000, 900, Some(4096))
        );
    }

    #[test]
    fn a_group_that_is_gone_has_no_usage() {
        assert_eq!(read_v2(Path::new("/nonexistent")), None);
    }
}
