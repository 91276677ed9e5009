//! Named steps in order, with a line for each and a count at the end.

use std::process::ExitCode;
use std::time::Instant;

use crate::Result;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Scenario {
    passed: u32,
    failures: Vec<String>,
}

impl Scenario {
    /// Runs one step; a failure is kept, and the scenario goes on.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> Result) {
        let start = Instant::now();
        let result = step();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {seconds:6.1} s  {name}");
            }
            Err(error) => {
                println!(
                    "FAILED  {seconds:6.1} s  {name}\n        {}",
                    error.replace('\n', "\n        ")
                );
                self.failures.push(name.to_owned());
            }
        }
    }

    /// Whether everything has held so far.
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints the count; the exit code for `main`.
    pub fn finish(self) -> ExitCode {
        for name in &self.failures {
            println!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failures.len());
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
