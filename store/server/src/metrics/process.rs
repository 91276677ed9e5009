//! The process itself, under the names that every Prometheus client has.

use std::fs;

use super::Text;

/// Clock ticks in a second: fixed by Linux' ABI.
const TICKS: f64 = 100.0;
/// Bytes in a page, on the machines that this runs on.
const PAGE: u64 = 4096;

/// What cannot be read is left out.
pub(super) fn write(text: &mut Text) {
    if let Some(stat) = Stat::read() {
        stat.write(text);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = open.count();
        text.gauge("process_open_fds", "Number of open file descriptors.", open);
    }
    if let Some(max) = open_files_max() {
        text.gauge("process_max_fds", "Maximum number of open file descriptors.", max);
    }
}

/// The fields of `/proc/self/stat` that are told.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    started_ticks: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The name of the process, which may hold anything, ends at the last parenthesis.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (number(11)? + number(12)?) / TICKS,
            started_ticks: number(19)?,
            virtual_bytes: fields.get(20)?.parse().ok()?,
            resident_bytes: fields.get(21)?.parse::<u64>().ok()? * PAGE,
        })
    }

    fn write(&self, text: &mut Text) {
        let name = "process_cpu_seconds_total";
        text.counter(name, "Total user and system CPU time spent in seconds.", self.cpu_seconds);
        let name = "process_resident_memory_bytes";
        text.gauge(name, "Resident memory size in bytes.", self.resident_bytes);
        let name = "process_virtual_memory_bytes";
        text.gauge(name, "Virtual memory size in bytes.", self.virtual_bytes);
        if let Some(booted) = booted() {
            let name = "process_start_time_seconds";
            let started = booted + self.started_ticks / TICKS;
            text.gauge(name, "Start time of the process since unix epoch in seconds.", started);
        }
    }
}

/// When the machine started, in seconds since the epoch.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 9 0 12345 4096000 25 1";
        let expected = Stat {
            cpu_seconds: 2.0,
            started_ticks: 12345.0,
            virtual_bytes: 4_096_000,
            resident_bytes: 25 * PAGE,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("7 (a) S"), None);
    }
}
