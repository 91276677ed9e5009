//! `pintle status`: members, leaders, nodes and what is wrong, in one screen.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use pintle_proto::etcdserverpb::StatusRequest;
use pintle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use serde::Serialize;

use crate::clients;
use crate::cluster::{ClusterFile, Layout, MemberEntry};
use crate::up::is_ready;

/// Which cluster, and how to print it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The folder that holds the cluster.
    #[arg(long, default_value = ".pintle", conflicts_with = "kubeconfig")]
    dir: PathBuf,
    /// Ask the API only, as this kubeconfig says.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The format.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Everything that is shown.
#[derive(Debug, Default, Serialize)]
struct Report {
    members: Vec<Member>,
    leaders: Vec<Leader>,
    nodes: Vec<NodeLine>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Member {
    name: String,
    role: &'static str,
    pid: u32,
    term: u64,
    revision: i64,
    /// Entries of the log that this member has yet to apply, against the furthest one.
    lag: u64,
    db_size_bytes: i64,
    #[serde(skip)]
    applied: u64,
}

#[derive(Debug, Serialize)]
struct Leader {
    component: String,
    holder: Option<String>,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    name: String,
    ready: bool,
    version: String,
    runtime: String,
}

/// Prints the report; the exit code is 0 even with problems, because asking succeeded.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let kubeconfig = match &options.kubeconfig {
        Some(path) => path.clone(),
        None => {
            let layout = Layout::new(&options.dir)?;
            let file = ClusterFile::load(&layout)?;
            report.add_members(&file).await;
            layout.admin_kubeconfig()
        }
    };
    match clients::kube_client_of_file(&kubeconfig).await {
        Ok(client) => report.add_cluster(&client).await,
        Err(error) => report.problems.push(format!("{}: {error:#}", kubeconfig.display())),
    }
    match options.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", report.table()),
    }
    Ok(())
}

impl Report {
    async fn add_members(&mut self, file: &ClusterFile) {
        for entry in &file.members {
            match member(file, entry).await {
                Ok(member) => self.members.push(member),
                Err(error) => self.problems.push(format!("member {}: {error:#}", entry.name)),
            }
        }
        let furthest = self.members.iter().map(|member| member.applied).max().unwrap_or(0);
        for member in &mut self.members {
            member.lag = furthest - member.applied;
        }
        let quorum = file.members.len() / 2 + 1;
        if self.members.len() < quorum {
            self.problems.push(format!(
                "{} of {} members answer: no quorum, writes wait",
                self.members.len(),
                file.members.len()
            ));
        } else if !self.members.iter().any(|member| member.role == "leader") {
            self.problems.push("the store has no leader".to_owned());
        }
    }

    async fn add_cluster(&mut self, client: &kube::Client) {
        let leases = Api::<Lease>::namespaced(client.clone(), "kube-system");
        for component in ["kube-scheduler", "kube-controller-manager"] {
            let holder = match leases.get_opt(component).await {
                Ok(lease) => lease
                    .and_then(|lease| lease.spec)
                    .and_then(|spec| spec.holder_identity)
                    .filter(|holder| !holder.is_empty()),
                Err(error) => {
                    self.problems.push(format!("the API does not answer: {error}"));
                    return;
                }
            };
            if holder.is_none() {
                self.problems.push(format!("{component} has no leader"));
            }
            self.leaders.push(Leader { component: component.to_owned(), holder });
        }
        match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
            Ok(nodes) => nodes.items.iter().for_each(|node| self.add_node(node)),
            Err(error) => self.problems.push(format!("listing nodes: {error}")),
        }
    }

    fn add_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let ready = is_ready(node);
        if !ready {
            self.problems.push(format!("node {name} is not Ready"));
        }
        self.nodes.push(NodeLine {
            name,
            ready,
            version: info.map(|info| info.kubelet_version.clone()).unwrap_or_default(),
            runtime: info.map(|info| info.container_runtime_version.clone()).unwrap_or_default(),
        });
    }

    fn table(&self) -> String {
        /// Pretended nodes come by the thousand; a screen has fewer lines.
        const NODES_SHOWN: usize = 20;
        let mut rows = vec![row(["MEMBER", "ROLE", "PID", "TERM", "REVISION", "LAG", "DB SIZE"])];
        for m in &self.members {
            rows.push(vec![
                m.name.clone(),
                m.role.to_owned(),
                m.pid.to_string(),
                m.term.to_string(),
                m.revision.to_string(),
                m.lag.to_string(),
                format!("{:.1} MiB", m.db_size_bytes as f64 / f64::from(1 << 20)),
            ]);
        }
        let mut text = if self.members.is_empty() { String::new() } else { align(&rows) + "\n" };
        let mut rows = vec![row(["COMPONENT", "LEADER"])];
        for leader in &self.leaders {
            let holder = leader.holder.clone().unwrap_or_else(|| "-".to_owned());
            rows.push(vec![leader.component.clone(), holder]);
        }
        text += &(align(&rows) + "\n");
        let mut rows = vec![row(["NODE", "STATUS", "VERSION", "RUNTIME"])];
        for node in self.nodes.iter().take(NODES_SHOWN) {
            let ready = if node.ready { "Ready" } else { "NotReady" };
            rows.push(row([&node.name, ready, &node.version, &node.runtime]));
        }
        text += &align(&rows);
        if self.nodes.len() > NODES_SHOWN {
            text += &format!("… and {} more\n", self.nodes.len() - NODES_SHOWN);
        }
        text.push('\n');
        if self.problems.is_empty() {
            text += "nothing is wrong\n";
        }
        for problem in &self.problems {
            text += &format!("WRONG: {problem}\n");
        }
        text
    }
}

async fn member(file: &ClusterFile, entry: &MemberEntry) -> anyhow::Result<Member> {
    let channel =
        clients::store_channel(&entry.client_url, &file.ca, &file.cert, &file.key).await?;
    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await?.into_inner();
    let header = status.header.unwrap_or_default();
    let role = match (status.leader == header.member_id, status.is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    };
    Ok(Member {
        name: entry.name.clone(),
        role,
        pid: entry.pid,
        term: status.raft_term,
        revision: header.revision,
        lag: 0,
        db_size_bytes: status.db_size,
        applied: status.raft_applied_index,
    })
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell, three spaces apart, as kubectl prints them.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(String::len).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("   ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_not_padded() {
        let rows = [row(["A", "B"]), row(["long", "x"])];
        assert_eq!(align(&rows), "A      B\nlong   x\n");
    }
}
