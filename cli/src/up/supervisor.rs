//! The process behind a development cluster: the front on the base port, the members and the
//! agents. It keeps `cluster.json` true and starts a member again that was killed.
//!
//! A killed agent stays dead: it plays a dead node. Children live in process groups of their
//! own, so that the death of this process takes nobody along; the next `up` adopts them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use pintle_nodeagent::balancer::Balancer;
use tokio_util::sync::CancellationToken;

use super::{NodeRuntime, Restart, print_ready, readiness};
use crate::cluster::{AgentEntry, ClusterFile, Layout, MemberEntry, Shape, save_json};
use crate::pki::Pki;
use crate::process::Process;
use crate::{node_names, signals};

const POLL: Duration = Duration::from_millis(200);
const RESTART_AFTER: Duration = Duration::from_secs(1);
const STOP_GRACE: Duration = Duration::from_secs(10);

/// One process of the cluster.
struct Child {
    name: String,
    role: Role,
    process: Option<Process>,
    ended_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Member(u16),
    Agent { index: u16, runtime: NodeRuntime },
    HollowAgent { count: u32, index: u16 },
}

struct Supervisor {
    layout: Layout,
    shape: Shape,
    restart: Restart,
    children: Vec<Child>,
}

/// Runs until SIGTERM or SIGINT, then stops everything in order. `progress` is there when a
/// person watches.
pub(super) async fn run(
    layout: Layout,
    shape: Shape,
    restart: Restart,
    runtime: NodeRuntime,
    progress: Option<ProgressBar>,
) -> anyhow::Result<()> {
    let shutdown = signals::shutdown_token()?;
    let own = Process::of(std::process::id()).context("reading our own process")?;
    save_json(&layout.supervisor_file(), &own)?;
    let backends = (1..=shape.members).map(|member| shape.api(member)).collect();
    let front = Balancer::bind(shape.front(), backends)
        .await
        .with_context(|| format!("the front on {}", shape.front()))?;
    let stop_front = CancellationToken::new();
    let front = tokio::spawn(front.run(stop_front.clone()));

    let children = plan(&shape, runtime);
    let mut supervisor = Supervisor { layout, shape, restart, children };
    supervisor.adopt_or_start()?;
    if let Some(progress) = progress {
        tokio::spawn(announce(supervisor.layout.clone(), supervisor.shape.clone(), progress));
    }
    supervisor.watch(&shutdown).await?;
    supervisor.stop().await?;
    stop_front.cancel();
    front.await?;
    std::fs::remove_file(supervisor.layout.supervisor_file())?;
    Ok(())
}

async fn announce(layout: Layout, shape: Shape, progress: ProgressBar) {
    let result = readiness::wait(&layout, &shape, &progress, super::READY_WITHIN).await;
    progress.finish_and_clear();
    match result {
        Ok(()) => print_ready(&layout, &shape),
        Err(error) => eprintln!("pintle: {error:#}"),
    }
}

fn plan(shape: &Shape, runtime: NodeRuntime) -> Vec<Child> {
    let child = |name, role| Child { name, role, process: None, ended_at: None };
    let members = (1..=shape.members).map(|i| child(node_names::member(i), Role::Member(i)));
    let nodes = (1..=shape.nodes)
        .map(|index| child(node_names::node(index), Role::Agent { index, runtime }));
    let hollow = (shape.hollow_nodes > 0).then(|| {
        let role = Role::HollowAgent { count: shape.hollow_nodes, index: shape.nodes + 1 };
        child(node_names::HOLLOW.to_owned(), role)
    });
    members.chain(nodes).chain(hollow).collect()
}

impl Supervisor {
    /// Takes over what an earlier supervisor left running, and starts the rest.
    fn adopt_or_start(&mut self) -> anyhow::Result<()> {
        let earlier = ClusterFile::load(&self.layout).ok();
        for child in &mut self.children {
            child.process = earlier.as_ref().and_then(|file| adoptable(file, &child.name));
            if child.process.is_none() {
                child.process = Some(start(&self.layout, &self.shape, child)?);
            }
        }
        self.save()
    }

    async fn watch(&mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(POLL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = tick.tick() => self.tend()?,
            }
        }
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        let mut changed = false;
        for child in &mut self.children {
            if child.process.is_some_and(|process| !process.is_alive()) {
                tracing::warn!(name = child.name, "ended");
                child.process = None;
                child.ended_at = Some(Instant::now());
                changed = true;
            }
            let due = child.ended_at.is_some_and(|at| at.elapsed() >= RESTART_AFTER);
            let wanted = matches!(child.role, Role::Member(_)) && self.restart == Restart::Always;
            if child.process.is_none() && due && wanted {
                child.process = Some(start(&self.layout, &self.shape, child)?);
                child.ended_at = None;
                changed = true;
            }
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Agents first, so that they can say goodbye; then all members at once.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let (members, agents): (Vec<_>, Vec<_>) =
            self.children.iter().partition(|child| matches!(child.role, Role::Member(_)));
        for group in [agents, members] {
            let stops = group.iter().filter_map(|child| child.process);
            for process in stops.clone() {
                process.signal(nix::sys::signal::Signal::SIGTERM)?;
            }
            for process in stops {
                process.stop(STOP_GRACE).await?;
            }
        }
        for child in &mut self.children {
            child.process = None;
        }
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        let pki = Pki::new(self.layout.pki());
        let mut file = ClusterFile {
            kubeconfig: self.layout.admin_kubeconfig(),
            front: format!("https://{}", self.shape.front()),
            ca: pki.ca().cert,
            cert: pki.admin().cert,
            key: pki.admin().key,
            members: Vec::new(),
            agents: Vec::new(),
        };
        for child in &self.children {
            let pid = child.process.map_or(0, |process| process.pid);
            let name = child.name.clone();
            match child.role {
                Role::Member(index) => file.members.push(MemberEntry {
                    pid,
                    api: format!("https://{}", self.shape.api(index)),
                    client_url: format!("https://{}", self.shape.client(index)),
                    peer_url: format!("https://{}", self.shape.peer(index)),
                    data_dir: self.layout.member_dir(&name),
                    name,
                }),
                Role::Agent { runtime, .. } => file.agents.push(AgentEntry {
                    pid,
                    runtime: runtime.name().to_owned(),
                    data_dir: self.layout.agent_dir(&name),
                    name,
                }),
                Role::HollowAgent { .. } => file.agents.push(AgentEntry {
                    pid,
                    runtime: "hollow".to_owned(),
                    data_dir: self.layout.agent_dir(&name),
                    name,
                }),
            }
        }
        save_json(&self.layout.cluster_file(), &file)
    }
}

/// What an earlier supervisor started under that name and that still runs.
fn adoptable(file: &ClusterFile, name: &str) -> Option<Process> {
    let members = file.members.iter().map(|member| (&member.name, member.pid));
    let agents = file.agents.iter().map(|agent| (&agent.name, agent.pid));
    let (_, pid) = members.chain(agents).find(|(known, _)| *known == name)?;
    Process::named(name, pid)
}

fn start(layout: &Layout, shape: &Shape, child: &Child) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    match child.role {
        Role::Member(index) => member_arguments(&mut command, layout, shape, index),
        Role::Agent { index, runtime } => {
            agent_arguments(&mut command, layout, shape, &child.name, index);
            command.args(["--runtime", runtime.name()]);
        }
        Role::HollowAgent { count, index } => {
            agent_arguments(&mut command, layout, shape, &child.name, index);
            command.args(["--runtime", "hollow", "--hollow-nodes", &count.to_string()]);
        }
    }
    Process::spawn(command, &layout.log(&child.name))
}

fn member_arguments(command: &mut Command, layout: &Layout, shape: &Shape, index: u16) {
    let name = node_names::member(index);
    let cluster: Vec<String> = (1..=shape.members)
        .map(|i| format!("{}=https://{}", node_names::member(i), shape.peer(i)))
        .collect();
    let apis: Vec<String> = (1..=shape.members).map(|i| shape.api(i).to_string()).collect();
    command.arg("server");
    command.args(["--name", &name]);
    command.arg("--data-dir").arg(layout.member_dir(&name));
    command.arg("--pki-dir").arg(layout.pki());
    command.args(["--listen-api", &shape.api(index).to_string()]);
    command.args(["--listen-client", &shape.client(index).to_string()]);
    command.args(["--listen-peer", &shape.peer(index).to_string()]);
    command.args(["--listen-metrics", &shape.metrics(index).to_string()]);
    command.args(["--initial-cluster", &cluster.join(",")]);
    command.args(["--advertise-api", &apis.join(",")]);
}

fn agent_arguments(command: &mut Command, layout: &Layout, shape: &Shape, name: &str, index: u16) {
    let apis: Vec<String> = (1..=shape.members).map(|i| shape.api(i).to_string()).collect();
    command.arg("agent");
    command.args(["--name", name]);
    command.arg("--data-dir").arg(layout.agent_dir(name));
    command.arg("--pki-dir").arg(layout.pki());
    command.args(["--api-servers", &apis.join(",")]);
    command.args(["--listen", &shape.kubelet(index).to_string()]);
}
