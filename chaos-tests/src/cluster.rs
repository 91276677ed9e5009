//! One cluster of `pintle up`, and what can be done to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::{Result, Tool, wait_for};

/// A control-plane member, as `cluster.json` has it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the file, which the contract describes")]
pub struct Member {
    pub name: String,
    pub pid: u32,
    pub api: String,
    pub client_url: String,
}

/// An agent, as `cluster.json` has it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the file, which the contract describes")]
pub struct Agent {
    pub name: String,
    pub pid: u32,
    pub runtime: String,
    pub data_dir: PathBuf,
}

/// `cluster.json`.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the file, which the contract describes")]
pub struct Files {
    pub kubeconfig: PathBuf,
    pub front: String,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub members: Vec<Member>,
    pub agents: Vec<Agent>,
}

/// A cluster in a folder of its own; it is stopped and removed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    pintle: Tool,
}

impl Cluster {
    /// `pintle` is the binary to test.
    pub fn new(pintle: &Path, dir: PathBuf) -> Self {
        Self { dir, pintle: Tool::new(pintle) }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `pintle up --detach` with these arguments; returns when the cluster is ready.
    pub fn up(&self, arguments: &[&str]) -> Result<String> {
        let dir = self.dir.display().to_string();
        let mut all = vec!["up", "--detach", "--dir", &dir];
        all.extend(arguments);
        Ok(self.pintle.run(&all)?)
    }

    /// Any other subcommand on this cluster.
    pub fn pintle(&self, subcommand: &[&str]) -> Result<String> {
        let dir = self.dir.display().to_string();
        Ok(self.pintle.run(&[subcommand, &["--dir", &dir]].concat())?)
    }

    /// What `cluster.json` says now.
    pub fn files(&self) -> Result<Files> {
        let path = self.dir.join("cluster.json");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{path:?}: {error}"))
    }

    /// kubectl with the admin's kubeconfig.
    pub fn kubectl(&self) -> Tool {
        let kubeconfig = self.dir.join("admin.kubeconfig").display().to_string();
        Tool::new("kubectl").with_env("KUBECONFIG", &kubeconfig)
    }

    /// etcdctl against these members.
    pub fn etcdctl(&self, members: &[&Member]) -> Result<Tool> {
        let files = self.files()?;
        let endpoints: Vec<&str> =
            members.iter().map(|member| member.client_url.as_str()).collect();
        let path = |path: &Path| path.display().to_string();
        Ok(Tool::new("etcdctl").with_env("ETCDCTL_API", "3").with_prefix(&[
            "--endpoints",
            &endpoints.join(","),
            "--cacert",
            &path(&files.ca),
            "--cert",
            &path(&files.cert),
            "--key",
            &path(&files.key),
        ]))
    }

    /// The member that leads the store, as `pintle status` sees it.
    pub fn leader(&self) -> Result<Member> {
        let status = self.pintle(&["status", "-o", "json"])?;
        let status: serde_json::Value =
            serde_json::from_str(&status).map_err(|error| error.to_string())?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let leader = members.iter().find(|member| member["role"] == "leader");
        let name = leader.and_then(|leader| leader["name"].as_str());
        let name = name.ok_or_else(|| format!("no leader in {status}"))?;
        let known = self.files()?.members.into_iter().find(|member| member.name == name);
        known.ok_or_else(|| format!("{name} is not in cluster.json"))
    }

    /// Kills processes of this cluster as a power cut does.
    pub fn kill(&self, pids: &[u32]) -> Result {
        for pid in pids {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
                .map_err(|error| format!("kill {pid}: {error}"))?;
        }
        Ok(())
    }

    /// Waits until every member runs again after a kill.
    pub fn wait_for_members(&self, gone: &[u32]) -> Result {
        wait_for("the killed members are started again", Duration::from_secs(180), || {
            let members = self.files()?.members;
            let back = members.iter().all(|member| member.pid != 0 && !gone.contains(&member.pid));
            if back { Ok(()) } else { Err(format!("{members:?}")) }
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::env::var_os("PINTLE_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.display());
            return;
        }
        if let Err(error) = self.pintle(&["down", "--purge"]) {
            eprintln!("stopping the cluster: {error}");
        }
    }
}
