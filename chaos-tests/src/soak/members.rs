//! Three `pintle store` processes on loopback, which can be killed and started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pintle_testing::free_address;
use tempfile::TempDir;

use crate::Result;

const COUNT: usize = 3;

/// The processes of one cluster; they end when it is dropped.
#[derive(Debug)]
pub struct Members {
    pintle: PathBuf,
    dir: TempDir,
    clients: Vec<String>,
    peers: Vec<String>,
    running: Vec<Option<Child>>,
}

fn free_urls(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("http://{}", free_address())).collect()
}

impl Members {
    /// Starts all of them.
    pub fn start(pintle: &Path) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
        let mut clients = free_urls(2 * COUNT);
        let peers = clients.split_off(COUNT);
        let running = (0..COUNT).map(|_| None).collect();
        let mut members = Self { pintle: pintle.to_owned(), dir, clients, peers, running };
        members.restart()?;
        Ok(members)
    }

    /// Where clients are served, by member.
    pub fn urls(&self) -> &[String] {
        &self.clients
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Kills these as a power cut does.
    pub fn kill(&mut self, members: &[usize]) -> Result {
        for member in members {
            if let Some(mut child) = self.running[*member].take() {
                child.kill().map_err(|error| format!("kill m{member}: {error}"))?;
                child.wait().map_err(|error| format!("wait for m{member}: {error}"))?;
            }
        }
        Ok(())
    }

    /// Starts those that do not run, on their data.
    pub fn restart(&mut self) -> Result {
        for member in 0..self.running.len() {
            if self.running[member].is_none() {
                let child = self.command(member)?.spawn();
                let child = child.map_err(|error| format!("{}: {error}", self.pintle.display()))?;
                self.running[member] = Some(child);
            }
        }
        Ok(())
    }

    /// The end of every member's log, for a failure.
    pub fn logs(&self) -> String {
        const TAIL: usize = 4_000;
        let tail = |member: usize| {
            let log = std::fs::read_to_string(self.log(member)).unwrap_or_default();
            let skipped = log.chars().count().saturating_sub(TAIL);
            format!("--- m{member}\n{}\n", log.chars().skip(skipped).collect::<String>())
        };
        (0..self.running.len()).map(tail).collect()
    }

    fn log(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}.log"))
    }

    fn command(&self, member: usize) -> Result<Command> {
        let log = std::fs::File::options().create(true).append(true).open(self.log(member));
        let log = log.map_err(|error| format!("the log of m{member}: {error}"))?;
        let cluster: Vec<String> =
            self.peers.iter().enumerate().map(|(i, url)| format!("m{i}={url}")).collect();
        let mut command = Command::new(&self.pintle);
        command
            .arg("store")
            .args(["--name", &format!("m{member}")])
            .arg("--data-dir")
            .arg(self.dir.path().join(format!("m{member}")))
            .args(["--listen-client-urls", &self.clients[member]])
            .args(["--advertise-client-urls", &self.clients[member]])
            .args(["--listen-peer-urls", &self.peers[member]])
            .args(["--initial-advertise-peer-urls", &self.peers[member]])
            .args(["--initial-cluster", &cluster.join(",")])
            // Often, so that kills meet flushes, purges and snapshots to members that were away.
            .args(["--snapshot-count", "500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(command)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        let all: Vec<usize> = (0..self.running.len()).collect();
        if let Err(error) = self.kill(&all) {
            eprintln!("stopping the members: {error}");
        }
    }
}
