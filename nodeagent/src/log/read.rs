//! Reading a container's log: from where the question says, line by line, and on as it grows.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::{cri_format, rotate};
use crate::runtime::Runtime;
use pintle_proto::cri::ContainerState;

/// How often a growing log is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(100);
/// How often it is asked whether the container still writes.
const ALIVE_PERIOD: Duration = Duration::from_secs(1);

/// Which part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on as it grows.
    pub follow: bool,
    /// Only the last lines.
    pub tail_lines: Option<usize>,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// `Stdout` or `Stderr` only.
    pub stream: Option<String>,
}

impl Options {
    /// From `sinceSeconds`.
    pub fn since_seconds(mut self, seconds: i64, now: Timestamp) -> Self {
        self.since =
            Some(now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
        self
    }
}

/// Writes the log to `out` until its end, or until the reader goes.
pub async fn read(
    runtime: &dyn Runtime,
    container_id: &str,
    path: &Path,
    options: Options,
    out: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    while !tokio::fs::try_exists(path).await? {
        // The runtime creates the file a moment after it has started the container.
        if !options.follow || !is_running(runtime, container_id).await {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PERIOD).await;
    }
    let mut printer =
        Printer { options: options.clone(), left: options.limit_bytes, line_open: false };
    let (mut files, skip) = start_at(path, options.tail_lines).await?;
    let mut skip = skip;
    let Some(last) = files.pop() else { return Ok(()) };
    for file in files {
        let mut reader = BufReader::new(File::open(file).await?);
        if !copy(&mut reader, &mut skip, &mut printer, out, &mut Vec::new()).await? {
            return Ok(());
        }
    }
    let mut reader = BufReader::new(File::open(&last).await?);
    let mut half = Vec::new();
    if !copy(&mut reader, &mut skip, &mut printer, out, &mut half).await? || !options.follow {
        return Ok(());
    }
    follow(runtime, container_id, path, reader, half, &mut printer, out).await
}

/// Copies whole records. Whether more is wanted. `half` holds a record that has no end yet.
async fn copy(
    reader: &mut BufReader<File>,
    skip: &mut usize,
    printer: &mut Printer,
    out: &mpsc::Sender<Bytes>,
    half: &mut Vec<u8>,
) -> io::Result<bool> {
    loop {
        if reader.read_until(b'\n', half).await? == 0 || half.last() != Some(&b'\n') {
            return Ok(!out.is_closed());
        }
        let record = std::mem::take(half);
        if *skip > 0 {
            *skip -= 1;
            continue;
        }
        let Some(text) = printer.print(&record) else { continue };
        if !text.is_empty() && out.send(text.into()).await.is_err() {
            return Ok(false);
        }
        if printer.left == Some(0) {
            return Ok(false);
        }
    }
}

async fn follow(
    runtime: &dyn Runtime,
    container_id: &str,
    path: &Path,
    mut reader: BufReader<File>,
    mut half: Vec<u8>,
    printer: &mut Printer,
    out: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut asked = tokio::time::Instant::now() - ALIVE_PERIOD;
    loop {
        // Before the last look at the file, so that nothing written before the end is missed.
        let mut ended = false;
        if asked.elapsed() >= ALIVE_PERIOD {
            ended = !is_running(runtime, container_id).await;
            asked = tokio::time::Instant::now();
        }
        if !copy(&mut reader, &mut 0, printer, out, &mut half).await? {
            return Ok(());
        }
        if is_rotated(reader.get_ref(), path).await {
            reader = BufReader::new(File::open(path).await?);
            half.clear();
            continue;
        }
        if ended {
            return Ok(());
        }
        tokio::select! {
            () = out.closed() => return Ok(()),
            () = tokio::time::sleep(FOLLOW_PERIOD) => {}
        }
    }
}

async fn is_running(runtime: &dyn Runtime, id: &str) -> bool {
    match runtime.container(id).await {
        Ok(detail) => detail.status.state() == ContainerState::ContainerRunning,
        Err(crate::runtime::Error::NotFound(_)) => false,
        Err(_) => true,
    }
}

/// Whether the name now stands for another file.
async fn is_rotated(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

/// The files to read, the oldest first, and how many records to skip in the first.
async fn start_at(path: &Path, tail: Option<usize>) -> io::Result<(Vec<PathBuf>, usize)> {
    let mut files = rotate::rotated_files(path);
    files.push(path.to_path_buf());
    let Some(tail) = tail else { return Ok((files, 0)) };
    let mut chosen = VecDeque::new();
    let mut lines = 0;
    while let Some(file) = files.pop() {
        let (records, ends) = count(&file).await?;
        chosen.push_front(file);
        lines += ends.len();
        if lines >= tail || files.is_empty() {
            // The record after the end of the line before the first that is wanted.
            let surplus = lines.saturating_sub(tail);
            let skip = match surplus {
                0 => 0,
                n => ends.get(n - 1).map_or(records, |end| end + 1),
            };
            return Ok((chosen.into(), skip));
        }
    }
    Ok((chosen.into(), 0))
}

/// How many records a file has, and which of them end a line.
async fn count(path: &Path) -> io::Result<(usize, Vec<usize>)> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(0)).await?;
    let mut reader = BufReader::new(file);
    let (mut records, mut ends, mut buffer) = (0, Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut buffer).await? > 0 {
        if cri_format::parse(&buffer).is_some_and(|line| !line.partial) {
            ends.push(records);
        }
        records += 1;
        buffer.clear();
    }
    Ok((records, ends))
}

/// Turns records into what people asked for.
struct Printer {
    options: Options,
    left: Option<u64>,
    line_open: bool,
}

impl Printer {
    /// `None` for what is not asked for.
    fn print(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let line = cri_format::parse(record)?;
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return None;
        }
        if let Some(stream) = &self.options.stream
            && !stream.eq_ignore_ascii_case(line.stream)
        {
            return None;
        }
        let mut text = Vec::with_capacity(record.len());
        if self.options.timestamps && !self.line_open {
            text.extend_from_slice(line.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.text);
        self.line_open = line.partial;
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: u8, tag: &str, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z stdout {tag} {text}\n")
    }

    async fn tail_of(lines: &[String], tail: usize) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, lines.concat()).unwrap();
        let (files, mut skip) = start_at(&path, Some(tail)).await.unwrap();
        let (sender, mut receiver) = mpsc::channel(64);
        let mut printer = Printer { options: Options::default(), left: None, line_open: false };
        for file in files {
            let mut reader = BufReader::new(File::open(file).await.unwrap());
            copy(&mut reader, &mut skip, &mut printer, &sender, &mut Vec::new()).await.unwrap();
        }
        drop(sender);
        let mut text = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn the_tail_counts_lines_and_not_records() {
        let lines = [
            record(1, "F", "one"),
            record(2, "P", "tw"),
            record(2, "F", "o"),
            record(3, "F", "three"),
        ];
        assert_eq!(tail_of(&lines, 1).await, "three\n");
        assert_eq!(tail_of(&lines, 2).await, "two\nthree\n");
        assert_eq!(tail_of(&lines, 9).await, "one\ntwo\nthree\n");
        assert_eq!(tail_of(&lines, 0).await, "");
    }

    #[test]
    fn times_limits_and_ages_are_respected() {
        let print = |options: Options| {
            let left = options.limit_bytes;
            let mut printer = Printer { options, left, line_open: false };
            let records = [record(1, "P", "ha"), record(1, "F", "lf"), record(5, "F", "late")];
            records
                .iter()
                .filter_map(|r| printer.print(r.as_bytes()))
                .flatten()
                .collect::<Vec<u8>>()
        };
        let text = |options| String::from_utf8(print(options)).unwrap();
        assert_eq!(text(Options::default()), "half\nlate\n");
        assert_eq!(
            text(Options { timestamps: true, ..Options::default() }),
            "2026-01-01T00:00:01.000000000Z half\n2026-01-01T00:00:05.000000000Z late\n"
        );
        assert_eq!(text(Options { limit_bytes: Some(6), ..Options::default() }), "half\nl");
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(text(Options { since, ..Options::default() }), "late\n");
    }
}
