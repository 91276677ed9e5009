//! The `pintle` command: parses flags, builds configurations, calls the libraries.
//!
//! One file a subcommand; nothing here decides anything that a library could decide.

mod agent;
mod bench;
mod clients;
mod cluster;
mod down;
mod image;
mod node_names;
mod pki;
mod process;
mod role;
mod server;
mod signals;
mod status;
mod store;
mod up;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is logged unless `PINTLE_LOG` says otherwise. openraft tells of every election step, and
/// the client of every refused connection, which the callers report in their own words.
pub(crate) const DEFAULT_LOG: &str =
    "info,openraft=error,kube_client=off,kube_runtime=error,hickory_proto=warn,hyper=warn";

/// A Kubernetes-compatible, highly available control plane in one binary.
#[derive(Parser)]
#[command(name = "pintle", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole cluster on this machine, for development.
    Up(up::Options),
    /// Stop the cluster of `up`; its data stays unless --purge.
    Down(down::Options),
    /// Show members, leaders, nodes and what is wrong, in one screen.
    Status(status::Options),
    /// Run one control-plane member: store, apiserver, scheduler and controllers.
    Server(Box<server::Options>),
    /// Run the store alone, with etcd's flags, variables and config file.
    Store(Box<store::Options>),
    /// Run the apiserver alone, on any etcd v3 store.
    Apiserver(Box<role::ApiserverOptions>),
    /// Run a scheduler alone.
    Scheduler(role::ClientOptions),
    /// Run the controllers alone.
    Controllers(role::ControllersOptions),
    /// Run one node (or many pretended ones).
    Agent(agent::Options),
    /// Measure ourselves beside a peer.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Work with container images.
    #[command(subcommand)]
    Image(image::Command),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let logs_itself =
        matches!(&cli.command, Command::Store(options) if store::logs_itself(options));
    if !logs_itself {
        start_log();
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("no other TLS provider is installed before this one");
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pintle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is logged: as `PINTLE_LOG` says.
pub(crate) fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env("PINTLE_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG))
}

fn start_log() {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter())
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

fn run(command: Command) -> anyhow::Result<()> {
    if let Command::Completion { shell } = command {
        clap_complete::generate(shell, &mut Cli::command(), "pintle", &mut std::io::stdout());
        return Ok(());
    }
    // The generator of load has a thread and a runtime of its own.
    if let Command::Bench(command) = command {
        return bench::run(command);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Up(options) => up::run(options).await,
            Command::Down(options) => down::run(&options).await,
            Command::Status(options) => status::run(&options).await,
            Command::Server(options) => server::run(*options).await,
            Command::Store(options) => store::run(*options).await,
            Command::Apiserver(options) => role::apiserver(*options).await,
            Command::Scheduler(options) => role::scheduler(options).await,
            Command::Controllers(options) => role::controllers(options).await,
            Command::Agent(options) => agent::run(options).await,
            Command::Image(command) => image::run(command).await,
            Command::Completion { .. } | Command::Bench(_) => {
                unreachable!("handled before the runtime starts")
            }
        }
    })
}
