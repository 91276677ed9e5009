//! Running the tools that users run, and keeping what they said.

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::wait::pause;

/// A tool call that is still running after this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// A program with the environment that it always gets.
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    prefix: Vec<String>,
    env: Vec<(String, String)>,
}

/// A call that did not end with 0.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The command line.
    pub command: String,
    /// Standard error, then standard output.
    pub output: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.command, self.output.trim())
    }
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.to_string()
    }
}

impl Tool {
    /// A program in the PATH or by path.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), prefix: Vec::new(), env: Vec::new() }
    }

    /// Arguments that come first in every call.
    #[must_use]
    pub fn with_prefix(mut self, arguments: &[&str]) -> Self {
        self.prefix.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// A variable of every call.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.prefix).args(arguments).envs(self.env.iter().cloned());
        command
    }

    fn line(&self, arguments: &[&str]) -> String {
        format!("{} {}", self.program.display(), arguments.join(" "))
    }

    /// Standard output of a call that succeeds.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Failed> {
        self.run_with(arguments, "")
    }

    /// The same, with standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<String, Failed> {
        let mut process = self.start_with(arguments, Stdio::piped())?;
        let mut stdin = process.child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        // A tool that ends without reading closes the pipe: its exit code tells more.
        std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        process.finish(LIMIT)
    }

    /// A call that must fail, and what it says.
    pub fn run_failing(&self, arguments: &[&str]) -> Result<String> {
        match self.run(arguments) {
            Ok(output) => Err(format!("`{}` succeeded: {output}", self.line(arguments))),
            Err(failed) => Ok(failed.output),
        }
    }

    /// Starts a call that goes on beside the test.
    pub fn start(&self, arguments: &[&str]) -> Result<Background, Failed> {
        self.start_with(arguments, Stdio::null())
    }

    fn start_with(&self, arguments: &[&str], stdin: Stdio) -> Result<Background, Failed> {
        let line = self.line(arguments);
        let failed =
            |error: std::io::Error| Failed { command: line.clone(), output: error.to_string() };
        let mut child = self
            .command(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdout = drain(child.stdout.take().expect("stdout is piped"));
        let stderr = drain(child.stderr.take().expect("stderr is piped"));
        Ok(Background { line, child, stdout: Some(stdout), stderr: Some(stderr) })
    }
}

type Reader = std::thread::JoinHandle<String>;

fn drain(mut pipe: impl Read + Send + 'static) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still what the tool said.
        drop(pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A call under way; it is killed when it is dropped.
#[derive(Debug)]
pub struct Background {
    line: String,
    child: Child,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
}

impl Background {
    /// Waits for the end; standard output of a success.
    pub fn finish(mut self, limit: Duration) -> Result<String, Failed> {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if start.elapsed() > limit => break None,
                Ok(None) => pause(Duration::from_millis(10)),
                Err(error) => return Err(self.failed(error.to_string())),
            }
        };
        let Some(status) = status else {
            return Err(self.failed(format!("still running after {} s", limit.as_secs())));
        };
        let text = |reader: Option<Reader>| {
            reader.map(|reader| reader.join().unwrap_or_default()).unwrap_or_default()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        if status.success() { Ok(stdout) } else { Err(self.failed(format!("{stderr}{stdout}"))) }
    }

    /// Ends the call and returns what it had printed.
    pub fn stop(mut self) -> String {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        self.stdout.take().map(|reader| reader.join().unwrap_or_default()).unwrap_or_default()
    }

    fn failed(&self, output: String) -> Failed {
        Failed { command: self.line.clone(), output }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
