//! `pintle bench store`: the same loads on our store and on a peer, on this machine, in turn.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use pintle_benches::results::Results;
use pintle_benches::system::{Launch, System};
use pintle_benches::workload::{CATALOG, select};
use pintle_benches::{Event, Plan, report, run};

/// Where etcd may be had from when it is not installed: the repository's own script.
const FETCH: &str = "scripts/debian-binary trixie etcd-server usr/bin/etcd";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure the store, beside etcd or any other store that speaks its API.
    Store(Options),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// Debian's etcd, started here.
    Etcd,
    /// Nothing: only our own figures.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables.
    Text,
    /// The results, as they are also written into a file.
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The peer.
    #[arg(long, value_enum, default_value = "etcd")]
    against: Against,
    /// Another peer, which runs already: host:port of each of its members, in plain text. Neither
    /// its CPU time nor its memory is measured.
    #[arg(long, value_delimiter = ',', conflicts_with = "against")]
    endpoints: Vec<String>,
    /// Only the workloads whose names begin with these.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// List the workloads and end.
    #[arg(long)]
    list: bool,
    /// How often each workload runs against each system.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a workload that has no end of its own is measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// One short round of small workloads, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Clients that share a connection; the default is that of etcd's own benchmark.
    #[arg(long, default_value_t = 10)]
    streams_per_connection: usize,
    /// Where the systems keep their data: on the disk that is to be measured.
    #[arg(long, default_value = ".pintle/bench")]
    dir: PathBuf,
    /// Where the report goes: this name with .json and .html.
    #[arg(long, default_value = "pintle-bench")]
    report: PathBuf,
    /// What is printed in the end.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let Command::Store(options) = command;
    if options.list {
        for workload in CATALOG {
            println!("{:<28}{}", workload.name, workload.about);
        }
        return Ok(());
    }
    let plan = plan(&options)?;
    warn_of_memory_disk(&plan);
    let progress = Progress::new();
    let results = run::run(&plan, &mut |event| progress.tell(event))?;
    progress.bar.finish_and_clear();
    write(&options, &results)
}

fn plan(options: &Options) -> anyhow::Result<Plan> {
    let mut workloads = select(&options.workloads).map_err(anyhow::Error::msg)?;
    if options.quick {
        workloads = workloads.into_iter().map(|workload| workload.reduced()).collect();
    }
    let mut systems = vec![ours()?];
    systems.extend(peer(options)?);
    Ok(Plan {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        systems,
        workloads,
        rounds: if options.quick { 1 } else { options.rounds },
        seconds: if options.quick { options.seconds.min(1.0) } else { options.seconds },
        streams_per_connection: options.streams_per_connection.max(1),
        history: if options.quick { 10_000 } else { 100_000 },
        leader_losses: if options.quick { 2 } else { 4 },
        memory_limit: if options.quick { 128 << 20 } else { 256 << 20 },
        dir: options.dir.clone(),
    })
}

fn ours() -> anyhow::Result<System> {
    let program = std::env::current_exe().context("finding this program")?;
    let arguments = vec!["store".to_owned()];
    Ok(System { name: "pintle".to_owned(), launch: Launch::Start { program, arguments } })
}

fn peer(options: &Options) -> anyhow::Result<Option<System>> {
    if !options.endpoints.is_empty() {
        let plain = |endpoint: &String| {
            if endpoint.starts_with("https://") {
                bail!("--endpoints {endpoint}: only plain text is measured");
            }
            Ok(endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned())
        };
        let endpoints = options.endpoints.iter().map(plain).collect::<Result<_, _>>()?;
        return Ok(Some(System { name: "peer".to_owned(), launch: Launch::At(endpoints) }));
    }
    match options.against {
        Against::None => Ok(None),
        Against::Etcd => {
            let launch = Launch::Start { program: etcd()?, arguments: Vec::new() };
            Ok(Some(System { name: "etcd".to_owned(), launch }))
        }
    }
}

/// In PATH, in the cache, or fetched into the cache.
fn etcd() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = cache().join("tools/bin");
    let find = || {
        std::env::split_paths(&path).chain([cache.clone()]).find_map(|folder| {
            let program = folder.join("etcd");
            program.is_file().then_some(program)
        })
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    let mut words = FETCH.split(' ');
    let script = words.next().map(PathBuf::from).filter(|script| script.is_file());
    let Some(script) = script else {
        bail!("no etcd in PATH: install Debian's etcd-server, or run this in the repository");
    };
    eprintln!("fetching etcd: {FETCH}");
    let status = std::process::Command::new(script).args(words).status().context(FETCH)?;
    if !status.success() {
        bail!("{FETCH}: {status}");
    }
    find().context("etcd was fetched and is not there")
}

/// As in `scripts/env.sh`.
fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    folder("PINTLE_CACHE").unwrap_or_else(|| {
        let home = || folder("HOME").unwrap_or_else(|| "/root".into()).join(".cache");
        folder("XDG_CACHE_HOME").unwrap_or_else(home).join("pintle")
    })
}

fn warn_of_memory_disk(plan: &Plan) {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    let folder = plan.dir.ancestors().find(|folder| folder.is_dir());
    let folder = folder.unwrap_or_else(|| std::path::Path::new("."));
    if statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        eprintln!("{} lies in memory: no disk is measured", plan.dir.display());
    }
}

fn write(options: &Options, results: &Results) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(results)?;
    for (extension, text) in [("json", json.clone()), ("html", report::html(results))] {
        let path = options.report.with_extension(extension);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        eprintln!("wrote {}", path.display());
    }
    match options.output {
        Output::Text => println!("{}", report::text(results)),
        Output::Json => println!("{json}"),
    }
    Ok(())
}

/// A line that moves on a terminal; elsewhere a line for each workload that is through.
struct Progress {
    bar: ProgressBar,
    systems: std::cell::RefCell<Vec<pintle_benches::results::Named>>,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new(1);
        let style = ProgressStyle::with_template("{spinner} {pos}/{len} {prefix} {msg} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, systems: std::cell::RefCell::default() }
    }

    fn tell(&self, event: Event<'_>) {
        match event {
            Event::Systems(systems) => *self.systems.borrow_mut() = systems.to_vec(),
            Event::Workload { index, of, workload } => {
                self.bar.set_length(of as u64);
                self.bar.set_position(index as u64);
                self.bar.set_prefix(workload.name);
            }
            Event::Turn { system, round, of } => {
                self.bar.set_message(format!("round {} of {of}, {system}", round + 1));
            }
            Event::Measured(measured) => {
                let text = report::workload_text(measured, &self.systems.borrow());
                self.bar.suspend(|| {
                    if std::io::stderr().is_terminal() {
                        eprintln!("{text}");
                    } else {
                        eprint!("{text}");
                    }
                });
            }
        }
    }
}
