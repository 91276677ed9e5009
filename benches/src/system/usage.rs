//! What a process has used, as the kernel tells.

use std::fs;
use std::io;

use nix::sys::resource::{UsageWho, getrusage};

use crate::results::Machine;

/// Linux shows times to programs in hundredths of a second on every machine that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of one process or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes: u64,
    /// The most it ever had, or had since [`reset_peak`].
    pub(crate) peak_bytes: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let ticks = cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu_seconds: ticks.unwrap_or(0) as f64 / TICKS_PER_SECOND,
            memory_bytes: kibibytes(&status, "VmRSS:").unwrap_or(0) << 10,
            peak_bytes: kibibytes(&status, "VmHWM:").unwrap_or(0) << 10,
        })
    }

    /// The CPU time of this process: the generator's.
    pub(crate) fn own_cpu_seconds() -> f64 {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), |sum, one| Self {
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            memory_bytes: sum.memory_bytes + one.memory_bytes,
            peak_bytes: sum.peak_bytes + one.peak_bytes,
        })
    }
}

/// User and system time from `/proc/PID/stat`. The second field is the program's name, which may
/// hold anything, so counting begins after it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Without the right to do so the peak stays that of the whole life, which is only worse.
pub(super) fn reset_peak(pid: u32) {
    drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
}

/// The machine that this runs on.
pub fn machine() -> Machine {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_mib: kibibytes(&memory, "MemTotal:").unwrap_or(0) >> 10,
        kernel: format!("Linux {}", release.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_does_not_move_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(200));
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let status = "VmPeak:\t  999 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2048));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1024));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).expect("Linux");
        assert!(usage.memory_bytes > 0 && usage.peak_bytes >= usage.memory_bytes);
    }
}
