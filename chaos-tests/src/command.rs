//! Running the tools that users run, and keeping what they said.

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::wait::pause;
use crate::{Result, wait_for};

/// A tool call that is still running after this hangs.
const LIMIT: Duration = Duration::from_secs(300);

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

/// Collects what a pipe says, readable meanwhile.
#[derive(Debug)]
struct Drain {
    said: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

fn drain(mut pipe: impl Read + Send + 'static) -> Drain {
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let collected = Arc::clone(&said);
    let thread = std::thread::spawn(move || {
        let mut chunk = [0; 8192];
        // What was read before an error is still what the tool said.
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            let mut said = collected.lock();
            said.extend_from_slice(&chunk[..length]);
        }
    });
    Drain { said, thread }
}

impl Drain {
    fn so_far(&self) -> String {
        let said = self.said.lock();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Everything, once the pipe is closed.
    fn all(self) -> String {
        let Self { said, thread } = self;
        // The reader does not panic; if it did, what it had read still counts.
        drop(thread.join());
        let said = said.lock();
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// A call under way; it is killed when it is dropped.
#[derive(Debug)]
pub struct Background {
    line: String,
    child: Child,
    stdout: Option<Drain>,
    stderr: Option<Drain>,
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
        let text = |drain: Option<Drain>| drain.map(Drain::all).unwrap_or_default();
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        if status.success() { Ok(stdout) } else { Err(self.failed(format!("{stderr}{stdout}"))) }
    }

    /// Ends the call and returns what it had printed.
    pub fn stop(mut self) -> String {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        self.stdout.take().map(Drain::all).unwrap_or_default()
    }

    /// What it has printed so far.
    pub fn so_far(&self) -> String {
        self.stdout.as_ref().map(Drain::so_far).unwrap_or_default()
    }

    /// Waits until the call has printed these words on its standard output.
    pub fn wait_for_words(&self, words: &str, limit: Duration) -> Result {
        wait_for(&format!("`{}` prints {words:?}", self.line), limit, || {
            let said = self.stdout.as_ref().map(Drain::so_far).unwrap_or_default();
            if said.contains(words) { Ok(()) } else { Err(said) }
        })
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
