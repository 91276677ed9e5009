//! `pintle up`: a whole cluster on this machine.
//!
//! The process that runs in the background is the [`supervisor`]: it owns the front and starts
//! members and agents as children. `--detach` starts that process and waits beside it.

pub(crate) use readiness::is_ready;

mod readiness;
mod supervisor;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cluster::{Layout, Shape, load_json, replace_file, save_json};
use crate::pki::Pki;
use crate::process::Process;
use crate::{clients, node_names};

/// How long the cluster may take to become ready before `up` says what is missing.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// What to start.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The folder that holds the cluster.
    #[arg(long, default_value = ".pintle")]
    dir: PathBuf,
    /// The port of the API; members use base + 10 i and the three ports after it.
    #[arg(long, default_value_t = 6443)]
    base_port: u16,
    /// Control-plane members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    members: u16,
    /// Real nodes (on containerd where root and containerd are there, else pretended).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=20))]
    nodes: u16,
    /// Pretended nodes beside them.
    #[arg(long, default_value_t = 0)]
    hollow_nodes: u32,
    /// Return when the cluster is ready; it goes on in the background.
    #[arg(long)]
    detach: bool,
    /// Whether a member that was killed is started again.
    #[arg(long, value_enum, default_value_t = Restart::Always)]
    restart: Restart,
    /// Be the process in the background.
    #[arg(long, hide = true)]
    supervise: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Restart {
    Always,
    Never,
}

/// What runs the containers of the real nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeRuntime {
    Containerd,
    Hollow,
}

impl NodeRuntime {
    /// Containerd needs root and the Debian packages; the reason why not is for people.
    fn detect() -> (Self, Option<String>) {
        if !nix::unistd::geteuid().is_root() {
            return (Self::Hollow, Some("not root".to_owned()));
        }
        let missing: Vec<&str> = ["containerd", "ctr", "runc", "nft", "ip"]
            .into_iter()
            .filter(|program| !in_path(program))
            .collect();
        if missing.is_empty() {
            (Self::Containerd, None)
        } else {
            (Self::Hollow, Some(format!("not installed: {}", missing.join(", "))))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Hollow => "hollow",
        }
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|folder| folder.join(program).is_file())
}

/// Starts or resumes the cluster.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let layout = Layout::new(&options.dir)?;
    if let Some(running) = running_supervisor(&layout)
        && running.pid != std::process::id()
    {
        bail!(
            "the cluster in {} already runs (pid {}): stop it with `pintle down`",
            layout.root().display(),
            running.pid
        );
    }
    let shape = resume_or_create(&layout, &options)?;
    prepare(&layout, &shape)?;
    let (runtime, why_hollow) = NodeRuntime::detect();
    if options.supervise {
        return supervisor::run(layout, shape, options.restart, runtime, None).await;
    }
    if let Some(why) = why_hollow.filter(|_| shape.nodes > 0) {
        println!("the nodes are pretended ({why})");
    }
    let progress = progress_bar();
    if !options.detach {
        return supervisor::run(layout, shape, options.restart, runtime, Some(progress)).await;
    }
    let process = start_supervisor(&layout, &options)?;
    let ready = readiness::wait(&layout, &shape, &progress, READY_WITHIN);
    tokio::select! {
        result = ready => result?,
        () = died(process) => bail!(
            "the cluster ended while it started; see {}",
            layout.log("up").display()
        ),
    }
    progress.finish_and_clear();
    print_ready(&layout, &shape);
    Ok(())
}

async fn died(process: Process) {
    while process.is_alive() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn start_supervisor(layout: &Layout, options: &Options) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--dir").arg(layout.root()).arg("--supervise");
    if options.restart == Restart::Never {
        command.args(["--restart", "never"]);
    }
    Process::spawn(command, &layout.log("up"))
}

/// The process that holds the cluster of this folder, if one does.
pub(crate) fn running_supervisor(layout: &Layout) -> Option<Process> {
    load_json::<Process>(&layout.supervisor_file()).ok().filter(|process| process.is_alive())
}

/// What the folder was created with wins over the flags, because the members know each other by it.
fn resume_or_create(layout: &Layout, options: &Options) -> anyhow::Result<Shape> {
    let asked = Shape {
        base_port: options.base_port,
        members: options.members,
        nodes: options.nodes,
        hollow_nodes: options.hollow_nodes,
    };
    if layout.shape_file().exists() {
        return load_json(&layout.shape_file());
    }
    let last = u32::from(asked.base_port) + 10 * u32::from(asked.members + asked.nodes + 2);
    if asked.base_port == 0 || last > u32::from(u16::MAX) {
        bail!("--base-port {}: the ports up to {last} do not exist", asked.base_port);
    }
    save_json(&layout.shape_file(), &asked)?;
    Ok(asked)
}

/// Certificates and the admin's kubeconfig.
fn prepare(layout: &Layout, shape: &Shape) -> anyhow::Result<()> {
    let pki = Pki::new(layout.pki());
    let mut nodes: Vec<String> = (1..=shape.nodes).map(node_names::node).collect();
    nodes.push(node_names::HOLLOW.to_owned());
    pki.ensure(&nodes)?;
    let server = format!("https://{}", shape.front());
    let kubeconfig = clients::kubeconfig(&server, &pki.ca().cert, "kubernetes-admin", &pki.admin());
    // JSON is YAML, and kubectl reads either.
    let text = serde_json::to_vec_pretty(&kubeconfig)?;
    replace_file(&layout.admin_kubeconfig(), &text, 0o600).context("writing the kubeconfig")?;
    fs::create_dir_all(layout.root().join("logs"))?;
    Ok(())
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
        .expect("the template is a constant");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn print_ready(layout: &Layout, shape: &Shape) {
    println!("cluster is ready");
    println!("  API      https://{}", shape.front());
    println!("  folder   {}", layout.root().display());
    println!();
    println!("Type next:");
    println!("  export KUBECONFIG={}", layout.admin_kubeconfig().display());
    println!("  kubectl get nodes");
    println!("  kubectl create deployment web --image={} --replicas=3", crate::image::DEMO);
}
