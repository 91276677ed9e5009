//! Child processes that outlive their starter: started in a session of their own, known by pid
//! and start time, so that a number the kernel has given to somebody else is never signalled.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process, and the moment the kernel started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot.
    start_ticks: u64,
}

impl Process {
    /// Starts `command` in a session of its own; both outputs go to the end of `log`.
    pub(crate) fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent)?;
        }
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let error = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        Self::of(child.id()).context("the process ended as soon as it was started")
    }

    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|(_, start_ticks)| Self { pid, start_ticks })
    }

    /// The process with this pid if it is a `pintle` that was started under `name`; the number in
    /// a file may belong to somebody else by now.
    pub(crate) fn named(name: &str, pid: u32) -> Option<Self> {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = command.contains("pintle") && command.split('\0').any(|word| word == name);
        Self::of(pid).filter(|process| ours && process.is_alive())
    }

    /// Whether it still runs (a zombie does not); reaps it when it was our child.
    pub(crate) fn is_alive(self) -> bool {
        let pid = Pid::from_raw(self.pid.cast_signed());
        // ECHILD for processes that an earlier supervisor started: those are not ours to reap.
        let reaped = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        if matches!(reaped, Ok(status) if status.pid().is_some()) {
            return false;
        }
        stat(self.pid).is_some_and(|(state, ticks)| state != 'Z' && ticks == self.start_ticks)
    }

    /// Sends a signal if it still runs.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        Ok(kill(Pid::from_raw(self.pid.cast_signed()), signal)?)
    }

    /// Waits until it has ended; false when `limit` ran out first.
    pub(crate) async fn ended(self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Asks it to end, and kills it when it has not within `grace`.
    pub(crate) async fn stop(self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if !self.ended(grace).await {
            self.signal(Signal::SIGKILL)?;
            self.ended(Duration::from_secs(5)).await;
        }
        Ok(())
    }
}

/// State and start time of a process; the command in parentheses may itself hold both.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some((state, start_ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_child_is_seen_as_ended() {
        let log = std::env::temp_dir().join(format!("pintle-process-{}.log", std::process::id()));
        let mut command = Command::new("sleep");
        command.arg("600");
        let process = Process::spawn(command, &log).expect("spawn");
        assert!(process.is_alive());
        process.signal(Signal::SIGKILL).expect("kill");
        assert!(process.ended(Duration::from_secs(10)).await);
        fs::remove_file(log).expect("clean up");
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Process::of(std::process::id()).expect("we run");
        assert!(!Process { start_ticks: own.start_ticks + 1, ..own }.is_alive());
    }
}
