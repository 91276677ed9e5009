//! The node's own containerd: started detached, so that it and its containers outlive the agent, and
//! found again by its socket and pid file.
//!
//! The containers are children of their shims, not of containerd: a containerd that dies is started
//! again and takes them over. Only [`stop_containerd`] ends them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::Paths;
use crate::images::PAUSE_IMAGE;
use crate::runtime::cri::Cri;
use crate::runtime::{self, Runtime};
use crate::{cni, mounts};

/// containerd's namespace for CRI.
pub const NAMESPACE: &str = "k8s.io";
/// A cold start on a slow disk takes seconds, not more.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the socket is tried while containerd starts.
const START_POLL: Duration = Duration::from_millis(50);
/// How often a running containerd is looked at.
const SUPERVISE_PERIOD: Duration = Duration::from_secs(2);
/// How long processes get between SIGTERM and SIGKILL when the node is taken down.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why containerd is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files could not be written or it could not be spawned.
    #[error("cannot start containerd: {0}")]
    Io(#[from] io::Error),
    /// It runs but does not answer.
    #[error("containerd does not answer within {} s, its log is {log}", START_TIMEOUT.as_secs())]
    Silent {
        /// containerd's log.
        log: PathBuf,
    },
    /// It ended at once.
    #[error("containerd ended with {status}, its log is {log}")]
    Ended {
        /// How it ended.
        status: std::process::ExitStatus,
        /// containerd's log.
        log: PathBuf,
    },
    /// A call failed while the node was taken down.
    #[error("stopping the containers: {0}")]
    Runtime(#[from] runtime::Error),
}

/// containerd's configuration, version 2, which 1.6, 1.7 and 2.x read.
///
/// `restrict_oom_score_adj`: this process may not protect others from the OOM killer, and a container
/// that asks for protection would not start.
pub fn config_toml(paths: &Paths, snapshotter: &str, restrict_oom_score_adj: bool) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = {restrict_oom_score_adj}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"
"#,
        root = paths.containerd_dir().join("root").display(),
        state = paths.run_dir().join("state").display(),
        socket = paths.containerd_socket().display(),
        cni_bin = cni::bin_dir(),
        cni_conf = paths.cni_conf_dir().display(),
    )
}

/// containerd's socket of the node with this data folder.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    Paths::new(data_dir).containerd_socket()
}

/// Makes sure that containerd runs and answers: adopts the live one or starts it.
pub async fn ensure_running(paths: &Paths) -> Result<(), Error> {
    if answers(paths).await {
        return Ok(());
    }
    // One that is alive but still busy is waited for, never doubled.
    if let Some(pid) = live_pid(paths) {
        tracing::info!(%pid, "waiting for the running containerd");
        if wait_until_answers(paths, None).await.is_ok() {
            return Ok(());
        }
        terminate(pid, STOP_GRACE).await;
    }
    start(paths).await
}

/// Keeps containerd running until `shutdown`, and leaves it running then.
pub async fn supervise(paths: Paths, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(sleep(SUPERVISE_PERIOD)).await.is_some() {
        if live_pid(&paths).is_none() {
            tracing::warn!("containerd is gone, starting it again");
            if let Err(error) = ensure_running(&paths).await {
                tracing::error!(%error, "containerd does not start");
            }
        }
    }
}

async fn start(paths: &Paths) -> Result<(), Error> {
    let dir = paths.containerd_dir();
    for folder in [&dir, &paths.run_dir().to_path_buf(), &paths.cni_conf_dir(), &paths.pod_logs()] {
        std::fs::create_dir_all(folder)?;
    }
    let config = dir.join("config.toml");
    std::fs::write(&config, config_toml(paths, snapshotter(&dir), !may_lower_oom_score()))?;
    let log = dir.join("containerd.log");
    let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
    // A session of its own: no signal of ours reaches it.
    let mut child = Command::new("setsid")
        .arg("containerd")
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
    std::fs::write(pid_file(paths), format!("{pid}\n"))?;
    tracing::info!(pid, "containerd started");
    let ready = wait_until_answers(paths, Some(&mut child)).await;
    // Reaps it when it ends, for as long as we live.
    tokio::spawn(async move { child.wait().await });
    ready
}

async fn wait_until_answers(
    paths: &Paths,
    mut child: Option<&mut tokio::process::Child>,
) -> Result<(), Error> {
    let log = paths.containerd_dir().join("containerd.log");
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        if answers(paths).await {
            return Ok(());
        }
        if let Some(child) = child.as_deref_mut()
            && let Some(status) = child.try_wait()?
        {
            return Err(Error::Ended { status, log });
        }
        sleep(START_POLL).await;
    }
    Err(Error::Silent { log })
}

/// Overlays cannot be stacked on an overlay, as inside a container: there images are copied.
fn snapshotter(dir: &Path) -> &'static str {
    match statfs(dir) {
        Ok(fs) if fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC => "native",
        _ => "overlayfs",
    }
}

/// Whether this process has `CAP_SYS_RESOURCE`, which some virtual machines and containers withhold.
fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> CAP_SYS_RESOURCE & 1 == 1)
}

async fn answers(paths: &Paths) -> bool {
    let socket = paths.containerd_socket();
    socket.exists() && Cri::new(&socket).version().await.is_ok()
}

fn pid_file(paths: &Paths) -> PathBuf {
    paths.containerd_dir().join("containerd.pid")
}

/// The recorded process, if it lives and is a containerd (pids are reused).
fn live_pid(paths: &Paths) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(pid_file(paths)).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let config = paths.containerd_dir().join("config.toml");
    let ours = command
        .split(|byte| *byte == 0)
        .any(|argument| argument == config.as_os_str().as_encoded_bytes());
    ours.then(|| Pid::from_raw(pid))
}

/// Ends every container of the node, containerd itself, and what they left mounted. Data stays.
pub async fn stop_containerd(data_dir: &Path) -> Result<(), Error> {
    let paths = Paths::new(data_dir);
    if live_pid(&paths).is_some() && answers(&paths).await {
        remove_sandboxes(&Cri::new(&paths.containerd_socket())).await?;
    }
    if let Some(pid) = live_pid(&paths) {
        terminate(pid, STOP_GRACE).await;
    }
    for pid in shim_pids(&paths) {
        terminate(pid, Duration::ZERO).await;
    }
    mounts::unmount_below(paths.run_dir());
    mounts::unmount_below(paths.data_dir());
    remove_bridge(&paths).await;
    for leftover in [pid_file(&paths), paths.containerd_socket()] {
        match std::fs::remove_file(leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    match std::fs::remove_dir_all(paths.run_dir()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// All pods at once: each gets the stop grace for its containers.
async fn remove_sandboxes(runtime: &Cri) -> Result<(), runtime::Error> {
    let containers = runtime.list_containers(None).await?;
    let stops = containers.iter().map(|c| runtime.stop_container(&c.id, STOP_GRACE));
    report_failures(futures::future::join_all(stops).await);
    let sandboxes = runtime.list_sandboxes(None).await?;
    let removals = sandboxes.iter().map(|sandbox| async {
        runtime.stop_sandbox(&sandbox.id).await?;
        runtime.remove_sandbox(&sandbox.id).await
    });
    report_failures(futures::future::join_all(removals).await);
    Ok(())
}

fn report_failures(results: Vec<Result<(), runtime::Error>>) {
    for error in results.into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "a container does not stop, its shim is ended");
    }
}

/// Shims leave their pid in the folder of their task.
fn shim_pids(paths: &Paths) -> Vec<Pid> {
    let tasks = paths.run_dir().join("state/io.containerd.runtime.v2.task").join(NAMESPACE);
    let Ok(entries) = std::fs::read_dir(tasks) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| ["init.pid", "shim.pid"].map(|name| entry.path().join(name)))
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// SIGTERM, and SIGKILL when `grace` is over; returns when the process is gone.
async fn terminate(pid: Pid, grace: Duration) {
    let deadline = Instant::now() + grace;
    let alive = || kill(pid, None).is_ok() && !is_zombie(pid);
    if !grace.is_zero() && kill(pid, Signal::SIGTERM).is_err() {
        return;
    }
    while alive() && Instant::now() < deadline {
        sleep(START_POLL).await;
    }
    if alive() && kill(pid, Signal::SIGKILL).is_ok() {
        let deadline = Instant::now() + STOP_GRACE;
        while alive() && Instant::now() < deadline {
            sleep(START_POLL).await;
        }
    }
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('Z')))
}

async fn remove_bridge(paths: &Paths) {
    let bridge = paths.bridge();
    if Path::new("/sys/class/net").join(&bridge).exists() {
        let removed = Command::new("ip").args(["link", "delete", &bridge]).status().await;
        if !removed.is_ok_and(|status| status.success()) {
            tracing::warn!(bridge, "cannot remove the bridge");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_configuration_is_shared_with_another_containerd() {
        let paths = Paths::new(Path::new("/data/node-1"));
        let config = config_toml(&paths, "overlayfs", false);
        for line in config.lines().filter(|line| {
            ["root =", "state =", "address = \"/", "conf_dir ="].iter().any(|k| line.contains(k))
        }) {
            assert!(line.contains("/data/node-1") || line.contains(paths.id()), "{line}");
        }
        assert!(config.contains(r#"sandbox_image = "localhost/pintle/pause:latest""#));
    }
}
