//! Simulates store clusters, one process a seed. Without arguments: the seeds of CI, some of them
//! twice, and every deliberate mistake, which must be convicted.
//!
//! `--seeds N` runs that many (`--from S`: beginning there); `--seed S` replays one and prints its
//! history when something is wrong, or always with `--print`; `--broken NAME` with a mistake; `--dir D`
//! keeps its files in an empty folder that is there.

mod children;
mod entropy;
mod options;

use std::path::Path;
use std::process::ExitCode;

use options::{Mode, Options};
use pintle_chaos::simulation::{Outcome, Plan, run};

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(Options { mode: Mode::One { seed, print }, broken, dir: Some(dir), .. }) => {
            one(seed, broken, print, &dir)
        }
        Ok(Options { mode: Mode::One { seed, print }, broken, dir: None, .. }) => {
            match options::folder(seed) {
                Ok(dir) => one(seed, broken, print, dir.path()),
                Err(error) => {
                    eprintln!("no place for the files of a simulation: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Ok(Options { mode: Mode::Many { from, seeds, whole }, jobs, .. }) => {
            children::judge(from, seeds, whole, jobs)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a seed in this process.
fn one(seed: u64, broken: Option<options::Mistake>, print: bool, dir: &Path) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().init();
    }
    let plan = Plan::of(seed, broken.map(options::Mistake::broken));
    // A thread whose randomness nobody has used yet, whether or not there is logging.
    let simulated = std::thread::scope(|scope| {
        let simulation = || {
            entropy::seed(seed);
            run(plan, dir)
        };
        scope.spawn(simulation).join()
    });
    let Ok(outcome) = simulated else { return ExitCode::FAILURE };
    match outcome {
        Ok(outcome) => report(seed, broken, print, &outcome),
        Err(error) => {
            eprintln!("seed {seed}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The last line of the output is for the parent: violations, operations and the digest.
fn report(seed: u64, broken: Option<options::Mistake>, print: bool, outcome: &Outcome) -> ExitCode {
    if print {
        for (_, line) in outcome.history.lines() {
            println!("{line}");
        }
    }
    for violation in &outcome.violations {
        println!("seed {seed} violates: {violation}");
    }
    if let Some(first) = outcome.violations.first() {
        println!("{}", outcome.history.excerpt(&first.around));
        println!("replay: {}", options::replay(seed, broken));
    }
    let operations = outcome.history.operations.len();
    let events: usize = outcome.history.watches.iter().map(|watch| watch.deliveries.len()).sum();
    let faults = outcome.history.faults.len();
    println!(
        "done {} {operations} {events} {faults} {}",
        outcome.violations.len(),
        outcome.digest()
    );
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
