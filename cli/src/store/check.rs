//! `pintle store check`: whether the data of a stopped member, or a snapshot, agrees with itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use pintle_store::archive::Archive;
use pintle_store::inspect;
use pintle_store::mvcc::offline::{Offline, Report};
use serde_json::json;

use super::output::Format;

/// What to check.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The data folder of a stopped member, or a snapshot.
    path: PathBuf,
    /// How to tell what was found.
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    output: Format,
}

/// Fails when something does not agree, so that a script can tell.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let report = with_state(&options.path, |state| Ok(state.check()?))?;
    let gaps = if options.path.is_dir() { log_gaps(&options.path)? } else { Vec::new() };
    print!("{}", describe(&report, &gaps, options.output));
    let total = report.problems_total + gaps.len() as u64;
    if total > 0 {
        bail!("{total} problems");
    }
    Ok(())
}

/// Opens the state of a data folder or of a snapshot.
pub(super) fn with_state<T>(
    path: &Path,
    look: impl FnOnce(&Offline) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if path.is_dir() {
        let folder = inspect::state_folder(path)?;
        ensure_stopped(&folder)?;
        return look(&Offline::open(&folder).with_context(|| folder.display().to_string())?);
    }
    let archive = Archive::open(path)?;
    archive.verify()?;
    let temp = tempfile::tempdir()?;
    archive.unpack(temp.path())?;
    look(&Offline::open(temp.path())?)
}

/// What a running member has not flushed would be missing, so it is not looked at.
fn ensure_stopped(folder: &Path) -> anyhow::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let Ok(lock) = std::fs::OpenOptions::new().read(true).write(true).open(folder.join("LOCK"))
    else {
        return Ok(());
    };
    let mut asked = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&lock, FcntlArg::F_GETLK(&mut asked))?;
    if asked.l_type != libc::F_UNLCK as libc::c_short {
        bail!("the member is running (process {}): stop it first", asked.l_pid);
    }
    Ok(())
}

/// Entries of the Raft log that are missing or cannot be read.
fn log_gaps(data_dir: &Path) -> anyhow::Result<Vec<String>> {
    let log = data_dir.join("member/log");
    if !log.exists() {
        return Ok(Vec::new());
    }
    let mut gaps = Vec::new();
    let mut last: Option<(u64, u64)> = None;
    inspect::raft_log(&log, 0, u64::MAX, |entry| {
        if let Some((index, term)) = last
            && (entry.index != index + 1 || entry.term < term)
        {
            let (found, of) = (entry.index, entry.term);
            gaps.push(format!("{found} of term {of} follows {index} of term {term}"));
        }
        if matches!(entry.content, inspect::LogContent::Unreadable) {
            gaps.push(format!("{}: the commands cannot be read", entry.index));
        }
        last = Some((entry.index, entry.term));
        true
    })?;
    Ok(gaps)
}

fn describe(report: &Report, gaps: &[String], format: Format) -> String {
    let problems: Vec<String> = report
        .problems
        .iter()
        .map(ToString::to_string)
        .chain(gaps.iter().map(|gap| format!("raft log {gap}")))
        .collect();
    if format == Format::Json {
        let total = report.problems_total + gaps.len() as u64;
        let told = json!({
            "entries": report.entries,
            "problemsTotal": total,
            "problems": problems,
        });
        return format!("{told}\n");
    }
    let mut text = String::new();
    for (family, count) in &report.entries {
        text += &format!("{family:12} {count:>12} entries\n");
    }
    for problem in &problems {
        text += &format!("{problem}\n");
    }
    let told = report.problems.len() as u64;
    if report.problems_total > told {
        text += &format!("and {} more\n", report.problems_total - told);
    }
    if problems.is_empty() {
        text += "everything agrees\n";
    }
    text
}
