//! Where the store's log goes, and in which form: `--log-level`, `--log-format`, `--log-outputs`.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use tracing_subscriber::EnvFilter;

use super::flags::Values;

/// What is told, how, and to whom.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// `None`: what `PINTLE_LOG` says, or the program's own choice.
    level: Option<&'static str>,
    json: bool,
    outputs: Vec<Output>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    Stderr,
    Stdout,
    File(String),
}

fn plan(values: &Values, is_terminal: bool) -> anyhow::Result<Plan> {
    let level = match values.text("log-level") {
        "" => None,
        "debug" => Some("debug"),
        "info" => Some("info"),
        "warn" => Some("warn"),
        // What etcd tells only before it ends, is an error here.
        "error" | "dpanic" | "panic" | "fatal" => Some("error"),
        other => bail!("unrecognized level: {other:?}"),
    };
    let json = match values.text("log-format") {
        "" => !is_terminal,
        "json" => true,
        "console" => false,
        other => bail!("unknown log format: {other}"),
    };
    let mut outputs = Vec::new();
    for output in values.list("log-outputs") {
        outputs.push(match output.as_str() {
            "default" | "stderr" | "systemd/journal" => Output::Stderr,
            "stdout" => Output::Stdout,
            _ => Output::File(output),
        });
    }
    if outputs.is_empty() {
        outputs.push(Output::Stderr);
    }
    Ok(Plan { level, json, outputs })
}

/// Sets the log up, once in a process.
pub(super) fn start(values: &Values) -> anyhow::Result<()> {
    let plan = plan(values, io::stderr().is_terminal())?;
    let filter = match plan.level {
        Some(level) => EnvFilter::new(crate::DEFAULT_LOG.replacen("info", level, 1)),
        None => crate::log_filter(),
    };
    let mut sinks = Vec::new();
    for output in &plan.outputs {
        sinks.push(match output {
            Output::Stderr => Sink::Stderr,
            Output::Stdout => Sink::Stdout,
            Output::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Sink::File(Arc::new(file.with_context(|| format!("--log-outputs {path}"))?))
            }
        });
    }
    let colours = plan.outputs == [Output::Stderr] && io::stderr().is_terminal();
    let sinks = Sinks(sinks);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(move || sinks.clone());
    if plan.json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}

#[derive(Clone)]
enum Sink {
    Stderr,
    Stdout,
    File(Arc<File>),
}

/// One event at a time, to every output.
#[derive(Clone)]
struct Sinks(Vec<Sink>);

impl Write for Sinks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for sink in &self.0 {
            match sink {
                Sink::Stderr => io::stderr().write_all(bytes)?,
                Sink::Stdout => io::stdout().write_all(bytes)?,
                Sink::File(file) => file.as_ref().write_all(bytes)?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(given: &[(&'static str, &str)], is_terminal: bool) -> anyhow::Result<Plan> {
        let given = given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        plan(&Values(given), is_terminal)
    }

    #[test]
    fn a_terminal_gets_text_and_a_pipe_json() {
        let plain = |json| Plan { level: None, json, outputs: vec![Output::Stderr] };
        assert_eq!(planned(&[], true).expect("valid"), plain(false));
        assert_eq!(planned(&[], false).expect("valid"), plain(true));
        assert_eq!(planned(&[("log-format", "console")], false).expect("valid"), plain(false));
    }

    #[test]
    fn levels_and_outputs_have_etcds_names() {
        let given = [("log-level", "fatal"), ("log-outputs", "stdout,/var/log/x,default")];
        let outputs = vec![Output::Stdout, Output::File("/var/log/x".to_owned()), Output::Stderr];
        let expected = Plan { level: Some("error"), json: false, outputs };
        assert_eq!(planned(&given, true).expect("valid"), expected);
        planned(&[("log-level", "loud")], true).expect_err("no such level");
        planned(&[("log-format", "xml")], true).expect_err("no such format");
    }

    #[test]
    fn every_output_gets_every_event() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = |path| Sink::File(Arc::new(File::create(path).expect("created")));
        let mut sinks = Sinks(vec![file(&a), file(&b)]);
        sinks.write_all(b"event\n").expect("written");
        for path in [a, b] {
            assert_eq!(std::fs::read(path).expect("there"), b"event\n");
        }
    }
}
