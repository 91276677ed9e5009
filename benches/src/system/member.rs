//! One member as a process of this machine.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::MemoryLimit;

/// etcd refuses writes beyond 2 GiB unless told otherwise; 8 GiB is the most it recommends.
const ETCD_QUOTA_BYTES: u64 = 8 << 30;

/// A member: how it is started, and the process while it runs.
#[derive(Debug)]
pub(super) struct Member {
    program: PathBuf,
    arguments: Vec<String>,
    client: String,
    log: PathBuf,
    child: Option<Child>,
}

/// Members that know each other, on free ports.
pub(super) fn plan(
    program: &Path,
    first_arguments: &[String],
    count: usize,
    dir: &Path,
) -> anyhow::Result<Vec<Member>> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    // All are held until all are known, so that none is given out twice.
    let held: Vec<TcpListener> =
        (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<String> = held
        .iter()
        .map(|port| port.local_addr().map(|address| address.to_string()))
        .collect::<Result<_, _>>()?;
    let (clients, peers) = addresses.split_at(count);
    let cluster: Vec<String> =
        peers.iter().enumerate().map(|(i, peer)| format!("m{i}=http://{peer}")).collect();
    let cluster = cluster.join(",");
    let member = |i: usize| {
        let (client, peer) = (&clients[i], &peers[i]);
        let mut arguments = first_arguments.to_vec();
        arguments.extend([
            format!("--name=m{i}"),
            format!("--data-dir={}", dir.join(format!("m{i}")).display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={cluster}"),
            "--initial-cluster-token=bench".to_owned(),
            "--initial-cluster-state=new".to_owned(),
            format!("--quota-backend-bytes={ETCD_QUOTA_BYTES}"),
            "--log-level=warn".to_owned(),
        ]);
        Member {
            program: program.to_owned(),
            arguments,
            client: client.clone(),
            log: dir.join(format!("m{i}.log")),
            child: None,
        }
    };
    Ok((0..count).map(member).collect())
}

/// What the program says of its version.
pub(super) fn version(program: &Path, arguments: &[String]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).arg("--version").output();
    let output = output.with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    Ok(first.trim_start_matches("etcd Version: ").to_owned())
}

impl Member {
    pub(super) fn endpoint(&self) -> String {
        self.client.clone()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn start(&mut self, limit: Option<&MemoryLimit>) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        // A process that looks for its limit when it starts must find it.
        let mut command = match limit {
            None => Command::new(&self.program),
            Some(limit) => limit.command(&self.program),
        };
        let variables = std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("ETCD_")));
        for (name, _) in variables {
            command.env_remove(name);
        }
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| self.program.display().to_string())?;
        self.child = Some(child);
        Ok(())
    }

    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status.to_string())
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(super) fn terminate(&self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("a member could not be ended: {error}");
        }
    }
}
