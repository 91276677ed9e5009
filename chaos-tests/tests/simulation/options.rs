//! The command line of the simulation.

use std::io;
use std::path::{Path, PathBuf};

use pintle_chaos::simulation::Broken;

/// The seeds of CI.
const SEEDS: u64 = 200;

/// A deliberate mistake, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) name: &'static str,
    broken: Broken,
}

impl Mistake {
    /// All that must be convicted.
    pub(crate) const ALL: [Self; 4] = [
        Self { name: "acknowledge-before-fsync", broken: Broken::AcknowledgeBeforeFsync },
        Self { name: "stale-read", broken: Broken::StaleRead },
        Self { name: "dropped-event", broken: Broken::DroppedEvent },
        Self { name: "double-lease", broken: Broken::DoubleLease },
    ];

    pub(crate) fn broken(self) -> Broken {
        self.broken
    }

    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|one| one.name).join(", ");
            format!("no mistake is called {name:?}; there are {names}")
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    One {
        seed: u64,
        print: bool,
    },
    /// `whole`: some seeds twice, and the mistakes, too.
    Many {
        from: u64,
        seeds: u64,
        whole: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) broken: Option<Mistake>,
    /// Processes at a time.
    pub(crate) jobs: usize,
    /// An empty folder for the files of one seed; its owner removes it.
    pub(crate) dir: Option<PathBuf>,
}

impl Options {
    /// Words without dashes are filters of the usual test harness, which mean nothing here.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut seed, mut print, mut broken) = (None, false, None);
        let (mut from, mut seeds, mut dir) = (0, None, None);
        let mut jobs = std::thread::available_parallelism().map_or(2, usize::from);
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<u64, String> {
                let text = arguments.next().ok_or(format!("{argument} needs a number"))?;
                text.parse().map_err(|_| format!("{argument}: {text:?} is not a number"))
            };
            match argument.as_str() {
                "--seed" => seed = Some(number()?),
                "--seeds" => seeds = Some(number()?),
                "--from" => from = number()?,
                "--jobs" => jobs = usize::try_from(number()?).unwrap_or(1).max(1),
                "--print" => print = true,
                "--broken" => {
                    let name = arguments.next().ok_or("--broken needs a name")?;
                    broken = Some(Mistake::named(&name)?);
                }
                "--dir" => {
                    let path = arguments.next().ok_or("--dir needs a folder")?;
                    dir = Some(PathBuf::from(path));
                }
                unknown if unknown.starts_with('-') => {
                    return Err(format!("unknown option {unknown}"));
                }
                _ => {}
            }
        }
        let mode = match seed {
            Some(seed) => Mode::One { seed, print },
            None => Mode::Many { from, seeds: seeds.unwrap_or(SEEDS), whole: seeds.is_none() },
        };
        Ok(Self { mode, broken, jobs, dir })
    }
}

/// Where a simulation keeps its files: in memory where it can, as nothing of it outlives it.
pub(crate) fn folder(seed: u64) -> io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let prefix = format!("pintle-simulation-{seed}-");
    builder.prefix(&prefix);
    if memory.is_dir()
        && let Ok(dir) = builder.tempdir_in(memory)
    {
        return Ok(dir);
    }
    builder.tempdir()
}

/// The command that runs a seed again.
pub(crate) fn replay(seed: u64, broken: Option<Mistake>) -> String {
    let broken = broken.map_or(String::new(), |one| format!(" --broken {}", one.name));
    format!(
        "cargo test --release --workspace --features pintle-chaos/simulation --test simulation -- --seed {seed}{broken} --print"
    )
}
