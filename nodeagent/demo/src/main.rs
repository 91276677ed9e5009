//! The one static binary of the project's own images: `pause` holds a pod's namespaces, the
//! other commands are a workload that demos and end-to-end tests can steer.
//!
//! It links statically (`-C target-feature=+crt-static`) and spawns nothing, so that an image
//! needs no other file. Threads instead of an async runtime keep it small.

mod client;
mod http;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// A workload for demos and tests, and the pause process of pods.
#[derive(Parser)]
#[command(name = "demo", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold a pod's namespaces and reap its orphans until told to stop.
    Pause,
    /// Answer HTTP, TCP and UDP until SIGTERM.
    Serve(serve::Options),
    /// Print lines and exit.
    Print(Print),
    /// Exit with a code, after a while if asked.
    Exit {
        /// The exit code.
        #[arg(default_value_t = 0)]
        code: u8,
        /// Milliseconds to wait first.
        #[arg(long, default_value_t = 0)]
        after_ms: u64,
    },
    /// Allocate and touch memory, then hold it.
    Allocate {
        /// Mebibytes.
        mebibytes: usize,
        /// Seconds to hold them.
        #[arg(long, default_value_t = 3600)]
        hold_s: u64,
    },
    /// Keep one core busy.
    Spin {
        /// Seconds.
        #[arg(default_value_t = 3600)]
        seconds: u64,
    },
    /// Ask an address once over HTTP, TCP or UDP and print the answer.
    Ask(client::Options),
    /// Resolve a name and print its addresses.
    Resolve {
        /// The host name.
        name: String,
    },
}

#[derive(Args)]
struct Print {
    /// What to print.
    #[arg(default_value = "hello")]
    text: String,
    /// How often; 0 means for ever.
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Milliseconds between two lines.
    #[arg(long, default_value_t = 1000)]
    every_ms: u64,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<ExitCode> {
    match command {
        Command::Pause => pause()?,
        Command::Serve(options) => serve::run(&options)?,
        Command::Print(print) => print_lines(&print)?,
        Command::Exit { code, after_ms } => {
            pass(Duration::from_millis(after_ms));
            return Ok(ExitCode::from(code));
        }
        Command::Allocate { mebibytes, hold_s } => {
            let memory = vec![1u8; mebibytes << 20];
            println!("holding {} MiB", memory.len() >> 20);
            pass(Duration::from_secs(hold_s));
            drop(memory);
        }
        Command::Spin { seconds } => {
            let until = std::time::Instant::now() + Duration::from_secs(seconds);
            while std::time::Instant::now() < until {
                std::hint::black_box((0..10_000u64).sum::<u64>());
            }
        }
        Command::Ask(options) => client::ask(&options)?,
        Command::Resolve { name } => {
            for address in client::resolve(&name)? {
                println!("{address}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits out a time that the user asked for.
#[expect(clippy::disallowed_methods, reason = "the wait itself is what was asked for")]
pub(crate) fn pass(duration: Duration) {
    std::thread::sleep(duration);
}

fn print_lines(print: &Print) -> io::Result<()> {
    let mut line = 0u64;
    while print.times == 0 || line < print.times {
        if line > 0 {
            pass(Duration::from_millis(print.every_ms));
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", print.text)?;
        out.flush()?;
        line += 1;
    }
    Ok(())
}

/// Process 1 of a shared PID namespace inherits orphans: ignoring SIGCHLD makes the kernel reap
/// them, and a termination signal ends the wait.
fn pause() -> io::Result<()> {
    use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGCHLD])?;
    for signal in signals.forever() {
        match signal {
            SIGCHLD => reap(),
            _ => break,
        }
    }
    Ok(())
}

fn reap() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}
