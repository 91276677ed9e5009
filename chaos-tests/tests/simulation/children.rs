//! Runs seeds in child processes, several at a time, and judges what they say.

use std::collections::VecDeque;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::options::{Mistake, folder, replay};

/// Seeds that are run twice.
const TWICE: u64 = 8;
/// A mistake must be convicted within this many seeds.
const CONVICTED_WITHIN: u64 = 120;
/// Reports that are shown in full.
const REPORTS_MAX: usize = 5;

/// A seed to run.
#[derive(Clone, Copy)]
struct Job {
    seed: u64,
    broken: Option<Mistake>,
}

/// What a child said.
struct Said {
    job: Job,
    text: String,
    /// Violations, operations, deliveries, faults; and the digest of the history.
    counts: Option<([u64; 4], String)>,
}

impl Said {
    fn of(job: Job, output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let counts = text.lines().last().and_then(parse);
        let text = text + &String::from_utf8_lossy(&output.stderr);
        Self { job, text, counts }
    }

    fn is_clean(&self) -> bool {
        matches!(&self.counts, Some(([0, ..], _)))
    }

    /// It came to a verdict, and that is "guilty".
    fn convicts(&self) -> bool {
        matches!(&self.counts, Some(([violations, ..], _)) if *violations > 0)
    }
}

fn parse(line: &str) -> Option<([u64; 4], String)> {
    let mut words = line.strip_prefix("done ")?.split(' ');
    let mut number = || words.next()?.parse().ok();
    let counts = [number()?, number()?, number()?, number()?];
    Some((counts, words.next()?.to_owned()))
}

/// A member that was killed leaves threads which go on writing files, so its folder can be removed
/// only after its process.
fn run(job: Job) -> Said {
    let dir = folder(job.seed).expect("a place for files");
    let mut command = Command::new(std::env::current_exe().expect("this file runs"));
    command.args(["--seed", &job.seed.to_string()]).arg("--dir").arg(dir.path());
    if let Some(broken) = job.broken {
        command.args(["--broken", broken.name]);
    }
    let output = command.output().expect("a child runs");
    Said::of(job, &output)
}

/// Runs everything in `jobs`, a few at a time, until `enough` says so; in the order of their ends.
fn run_all(
    jobs: impl IntoIterator<Item = Job>,
    at_a_time: usize,
    enough: impl Fn(&Said) -> bool + Sync,
) -> Vec<Said> {
    let queue: Mutex<VecDeque<Job>> = Mutex::new(jobs.into_iter().collect());
    let said = Mutex::new(Vec::new());
    let ended = AtomicUsize::new(0);
    let work = || {
        loop {
            let Some(job) = queue.lock().pop_front() else { return };
            let one = run(job);
            if enough(&one) {
                queue.lock().clear();
            }
            said.lock().push(one);
            let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
            if ended.is_multiple_of(500) {
                println!("{ended} runs");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(work);
        }
    });
    said.into_inner()
}

/// Runs the seeds and prints a verdict.
pub(crate) fn judge(from: u64, seeds: u64, whole: bool, at_a_time: usize) -> ExitCode {
    let started = Instant::now();
    let clean = honest(from, seeds, at_a_time);
    let judged = !whole || (repeats(from, at_a_time) & convicts(from, at_a_time));
    println!("simulation: {:.0} s", started.elapsed().as_secs_f64());
    if clean && judged { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The store as it is: no seed may find anything.
fn honest(from: u64, seeds: u64, at_a_time: usize) -> bool {
    let jobs = (from..from + seeds).map(|seed| Job { seed, broken: None });
    let said = run_all(jobs, at_a_time, |_| false);
    let sum = |i: usize| -> u64 {
        said.iter().filter_map(|one| one.counts.as_ref()).map(|(counts, _)| counts[i]).sum()
    };
    println!(
        "simulation: {} seeds, {} operations, {} deliveries to watchers, {} faults",
        said.len(),
        sum(1),
        sum(2),
        sum(3)
    );
    let mut guilty: Vec<&Said> = said.iter().filter(|one| !one.is_clean()).collect();
    guilty.sort_by_key(|one| one.job.seed);
    for one in guilty.iter().take(REPORTS_MAX) {
        println!("{}", one.text);
        if one.counts.is_none() {
            println!(
                "seed {} did not end well\nreplay: {}",
                one.job.seed,
                replay(one.job.seed, None)
            );
        }
    }
    if !guilty.is_empty() {
        let seeds: Vec<u64> = guilty.iter().map(|one| one.job.seed).collect();
        println!("simulation: FAILED for {} of {} seeds: {seeds:?}", seeds.len(), said.len());
    }
    guilty.is_empty()
}

/// The same seed gives the same history.
fn repeats(from: u64, at_a_time: usize) -> bool {
    let seeds = from..from + TWICE;
    let jobs = seeds.clone().chain(seeds).map(|seed| Job { seed, broken: None });
    let mut said = run_all(jobs, at_a_time, |_| false);
    said.sort_by_key(|one| one.job.seed);
    let same = |two: &&[Said]| two[0].counts.is_some() && two[0].counts == two[1].counts;
    let differ: Vec<u64> =
        said.chunks(2).filter(|two| !same(two)).map(|two| two[0].job.seed).collect();
    println!("simulation: {TWICE} seeds run twice, {} with two histories {differ:?}", differ.len());
    differ.is_empty()
}

/// Every mistake is found out.
fn convicts(from: u64, at_a_time: usize) -> bool {
    let convicted = Mistake::ALL.map(|mistake| {
        let seeds = from..from + CONVICTED_WITHIN;
        let jobs = seeds.map(|seed| Job { seed, broken: Some(mistake) });
        let said = run_all(jobs, at_a_time, Said::convicts);
        let proof = said.iter().find(|one| one.convicts());
        match proof {
            Some(one) => {
                let first = one.text.lines().next().unwrap_or_default();
                println!(
                    "simulation: {} convicted after {} runs: {first}",
                    mistake.name,
                    said.len()
                );
            }
            None => println!("simulation: {} NOT convicted in {} runs", mistake.name, said.len()),
        }
        proof.is_some()
    });
    convicted.into_iter().all(|one| one)
}
