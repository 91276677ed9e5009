//! `pintle down`: stops the cluster of `up`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::cluster::{ClusterFile, Layout};
use crate::process::Process;
use crate::up;

/// Members that the supervisor no longer stops get this long to end.
const GRACE: Duration = Duration::from_secs(10);

/// What to stop.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The folder that holds the cluster.
    #[arg(long, default_value = ".pintle")]
    dir: PathBuf,
    /// Remove the data too.
    #[arg(long)]
    purge: bool,
}

/// Stops the supervisor, whatever it left behind, and the containers of the nodes.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let layout = Layout::new(&options.dir)?;
    let file = ClusterFile::load(&layout)?;
    if let Some(supervisor) = up::running_supervisor(&layout) {
        supervisor.stop(Duration::from_secs(40)).await?;
    }
    let members = file.members.iter().map(|member| (member.name.as_str(), member.pid));
    let agents = file.agents.iter().map(|agent| (agent.name.as_str(), agent.pid));
    for (name, pid) in members.chain(agents) {
        if let Some(process) = Process::named(name, pid) {
            process.stop(GRACE).await.with_context(|| format!("stopping {name} (pid {pid})"))?;
        }
    }
    for agent in file.agents.iter().filter(|agent| agent.runtime == "containerd") {
        pintle_nodeagent::stop_containerd(&agent.data_dir)
            .await
            .with_context(|| format!("stopping the containers of {}", agent.name))?;
    }
    if options.purge {
        std::fs::remove_dir_all(layout.root())
            .with_context(|| format!("removing {}", layout.root().display()))?;
        println!("stopped; {} is removed", layout.root().display());
    } else {
        println!("stopped; the data stays in {}", layout.root().display());
    }
    Ok(())
}
