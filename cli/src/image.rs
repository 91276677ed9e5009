//! `pintle image`: images without a registry.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::cluster::{AgentEntry, ClusterFile, Layout};

/// The project's own test and demo image, imported on every real node.
pub(crate) const DEMO: &str = pintle_nodeagent::images::DEMO_IMAGE;

/// What to do with images.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Bring an image archive (OCI layout or docker save) to the nodes of a cluster.
    Import {
        /// The archive.
        file: PathBuf,
        /// The folder that holds the cluster.
        #[arg(long, default_value = ".pintle")]
        dir: PathBuf,
        /// Only this node; without it, all real ones.
        #[arg(long)]
        node: Option<String>,
    },
    /// Write the project's own images as archives into a folder.
    Build {
        /// The folder.
        #[arg(default_value = "images")]
        out: PathBuf,
    },
}

/// Carries out one command.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Build { out } => {
            for archive in pintle_nodeagent::images::build_own(&out)? {
                println!("{}", archive.display());
            }
            Ok(())
        }
        Command::Import { file, dir, node } => {
            let cluster = ClusterFile::load(&Layout::new(&dir)?)?;
            for agent in real_nodes(&cluster, node.as_deref())? {
                let images = pintle_nodeagent::images::import(&agent.data_dir, &file)
                    .await
                    .with_context(|| format!("importing on {}", agent.name))?;
                for image in images {
                    println!("{}: {image}", agent.name);
                }
            }
            Ok(())
        }
    }
}

fn real_nodes<'a>(
    cluster: &'a ClusterFile,
    name: Option<&str>,
) -> anyhow::Result<Vec<&'a AgentEntry>> {
    let nodes: Vec<_> = cluster
        .agents
        .iter()
        .filter(|agent| agent.runtime == "containerd")
        .filter(|agent| name.is_none_or(|name| agent.name == name))
        .collect();
    if nodes.is_empty() {
        let known: Vec<_> = cluster.agents.iter().map(|agent| agent.name.as_str()).collect();
        bail!("no node on containerd matches; the agents are: {}", known.join(", "));
    }
    Ok(nodes)
}
