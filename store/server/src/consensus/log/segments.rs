//! The files of the log: frames one after the other, cut into segments, so that what is no longer
//! needed goes with its file.
//!
//! A segment has its full size from the beginning, and zeros are written some way ahead of what the
//! log holds: a write changes no metadata and costs the disk one request. Each begins with a frame of
//! all that is not an entry (vote, commit and purge), so earlier segments can go.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use openraft::entry::RaftEntry;

use super::super::convert::entry_from_bytes;
use super::super::types::{LogId, Vote};
use super::frame::{self, Found, Frame, Item};
use super::places::{Place, Places};

/// A larger frame gets a segment of its own.
const SEGMENT_BYTES: u64 = 32 << 20;
/// So much is written in advance. The first write to a block that was only allocated changes the
/// file's metadata, and an fdatasync waits for that, too: of 4 KiB it takes twice as long (ext4).
const AHEAD_BYTES: u64 = 512 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
const SUFFIX: &str = ".wal";
const LOCK: &str = "LOCK";

/// What is not an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Meta {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
}

impl Meta {
    /// A frame that repeats everything.
    fn frame(&self) -> io::Result<Frame> {
        let mut frame = Frame::new();
        // It has an item in any case: a frame of none would look like nothing.
        frame.truncate(u64::MAX)?;
        self.vote.iter().try_for_each(|vote| frame.vote(vote))?;
        self.committed.iter().try_for_each(|id| frame.committed(id))?;
        self.purged.iter().try_for_each(|id| frame.purged(id))?;
        Ok(frame)
    }
}

/// One file. Whoever reads from it, or has entries in it, holds a reference.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    path: PathBuf,
}

impl Segment {
    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

/// How writes are done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    /// A write is on disk before it counts as written.
    pub(super) sync: bool,
    /// Segments have their full size from the beginning.
    pub(super) allocate: bool,
}

/// The open files, of one writer.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    writing: Writing,
    /// The last one is written to.
    files: VecDeque<Arc<Segment>>,
    /// Where in it the next frame goes,
    offset: u64,
    /// up to where it has blocks that were written before,
    ready: u64,
    /// and how much it has room for.
    capacity: u64,
    /// The name of the next file.
    next_file: u64,
    /// The number of the next frame.
    next_frame: u64,
    _lock: File,
}

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) meta: Meta,
    pub(super) places: Places,
}

fn damaged(path: &Path, offset: usize, what: &str) -> io::Error {
    let path = path.display();
    let message = format!("the raft log is damaged: {path}, at {offset}: {what}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Whether a file is a segment, by its name.
pub(super) fn is_segment(path: &Path) -> bool {
    number(path).is_some()
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The segments of a log, in order.
fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        found.extend(number(&path).map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes what was created or removed in a folder outlast a crash.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("{}: the lock is held by another process", path.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, message))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Reads frame after frame.
struct Reading {
    contents: Contents,
    /// The number of the next frame, once one was read.
    next_frame: Option<u64>,
}

impl Reading {
    fn new() -> Self {
        Self { contents: Contents::default(), next_frame: None }
    }

    /// Reads a segment; the answer is where its frames end. Only the `last` one may end with what a
    /// crash tore.
    fn segment(&mut self, segment: &Arc<Segment>, last: bool) -> io::Result<usize> {
        let file = Bytes::from(fs::read(&segment.path)?);
        let mut at = 0;
        loop {
            let wanted = self.next_frame;
            match frame::read(&file, at) {
                Found::Frame { number, items, next }
                    if wanted.is_none_or(|wanted| wanted == number) =>
                {
                    for item in items {
                        let applied = self.contents.apply(item, segment, at);
                        applied.map_err(|what| damaged(&segment.path, at, &what))?;
                    }
                    self.next_frame = Some(number + 1);
                    at = next;
                }
                Found::Frame { number, .. } => {
                    let wanted = wanted.unwrap_or_default();
                    let what = format!("write {number} instead of {wanted}");
                    return Err(damaged(&segment.path, at, &what));
                }
                Found::Nothing | Found::Broken => {
                    if frame::follows(&file, at, wanted) {
                        return Err(damaged(&segment.path, at, "later writes follow"));
                    }
                    let unwritten =
                        file.get(at..).unwrap_or_default().iter().all(|byte| *byte == 0);
                    if !last && !unwritten {
                        return Err(damaged(&segment.path, at, "a later segment follows"));
                    }
                    return Ok(at);
                }
            }
        }
    }
}

impl Contents {
    fn apply(&mut self, item: Item, segment: &Arc<Segment>, frame: usize) -> Result<(), String> {
        match item {
            Item::Entry(bytes, span) => {
                let entry = entry_from_bytes(bytes).map_err(|error| error.to_string())?;
                let place = Place {
                    segment: Arc::clone(segment),
                    offset: (frame + span.start) as u64,
                    length: u32::try_from(span.length).map_err(|error| error.to_string())?,
                };
                self.places.push(entry.index(), place)
            }
            Item::Vote(vote) => {
                self.meta.vote = Some(vote);
                Ok(())
            }
            Item::Committed(id) => {
                self.meta.committed = Some(id);
                Ok(())
            }
            Item::Purged(upto) => {
                self.meta.purged = self.meta.purged.max(Some(upto));
                self.places.purge(upto.index());
                Ok(())
            }
            Item::Truncate(from) => {
                self.places.truncate(from);
                Ok(())
            }
        }
    }

    /// Entries must begin where the log was cut.
    fn check(&self, dir: &Path) -> io::Result<()> {
        let first = self.meta.purged.map_or(0, |id| id.index() + 1);
        if !self.places.is_empty() && self.places.first() != first {
            let what = format!("it begins at {} instead of {first}", self.places.first());
            return Err(damaged(dir, 0, &what));
        }
        Ok(())
    }
}

/// Reads a log that nobody writes to, and changes nothing.
pub(super) fn inspect(dir: &Path) -> io::Result<Contents> {
    let mut reading = Reading::new();
    let paths = list(dir)?;
    for (place, (_, path)) in paths.iter().enumerate() {
        let segment = Arc::new(Segment { file: File::open(path)?, path: path.clone() });
        reading.segment(&segment, place + 1 == paths.len())?;
    }
    reading.contents.check(dir)?;
    Ok(reading.contents)
}

impl Segments {
    /// Opens the log under `dir`, or makes an empty one. What a crash tore off is removed.
    pub(super) fn open(dir: &Path, writing: Writing) -> io::Result<(Self, Contents)> {
        fs::create_dir_all(dir)?;
        let lock = lock(dir)?;
        let mut reading = Reading::new();
        let paths = list(dir)?;
        let mut segments = Self {
            dir: dir.to_owned(),
            writing,
            files: VecDeque::new(),
            offset: 0,
            ready: 0,
            capacity: 0,
            next_file: paths.last().map_or(1, |(number, _)| number + 1),
            next_frame: 1,
            _lock: lock,
        };
        for (place, (_, path)) in paths.iter().enumerate() {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let segment = Arc::new(Segment { file, path: path.clone() });
            let end = reading.segment(&segment, place + 1 == paths.len())?;
            if end == 0 {
                // A crash left it without a frame.
                fs::remove_file(path)?;
                continue;
            }
            segments.files.push_back(segment);
            segments.offset = end as u64;
        }
        reading.contents.check(dir)?;
        segments.next_frame = reading.next_frame.unwrap_or(1);
        match segments.files.back() {
            None => segments.rotate(0, &reading.contents.meta)?,
            Some(last) => {
                // Zeros behind the end: nothing that was torn off may be taken for a frame later.
                last.file.set_len(segments.offset)?;
                segments.ready = segments.offset;
                segments.capacity = segments.offset.max(SEGMENT_BYTES);
                if writing.allocate {
                    allocate(&last.file, segments.capacity)?;
                }
                last.file.sync_all()?;
            }
        }
        Ok((segments, reading.contents))
    }

    /// Writes a frame behind the others; the answer is where it lies. `meta` is what was written
    /// before it.
    pub(super) fn write(
        &mut self,
        frame: &mut Frame,
        meta: &Meta,
    ) -> io::Result<(Arc<Segment>, u64)> {
        let length = frame.len() as u64;
        if self.offset + length > self.capacity.max(SEGMENT_BYTES) {
            self.rotate(length, meta)?;
        }
        let offset = self.append(frame)?;
        let active = self.files.back().expect("one is always open");
        Ok((Arc::clone(active), offset))
    }

    fn append(&mut self, frame: &mut Frame) -> io::Result<u64> {
        let active = self.files.back().expect("one is always open");
        let bytes = frame.seal(self.next_frame)?;
        active.file.write_all_at(bytes, self.offset)?;
        let end = self.offset + bytes.len() as u64;
        if self.writing.allocate && end > self.ready {
            self.ready = (end + AHEAD_BYTES).min(self.capacity).max(end);
            write_zeros(&active.file, end..self.ready);
        }
        if self.writing.sync {
            active.file.sync_data()?;
        }
        let offset = std::mem::replace(&mut self.offset, end);
        self.next_frame += 1;
        Ok(offset)
    }

    /// Begins a segment with room for `length` bytes beside what all begin with.
    fn rotate(&mut self, length: u64, meta: &Meta) -> io::Result<()> {
        let path = self.dir.join(format!("{:016}{SUFFIX}", self.next_file));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let mut first = meta.frame()?;
        let capacity = SEGMENT_BYTES.max(length + 2 * first.len() as u64);
        if self.writing.allocate
            && let Err(error) = allocate(&file, capacity)
        {
            fs::remove_file(&path)?;
            return Err(error);
        }
        if let Some(before) = self.files.back() {
            // What it has not used.
            before.file.set_len(self.offset)?;
        }
        self.files.push_back(Arc::new(Segment { file, path }));
        self.next_file += 1;
        (self.offset, self.ready, self.capacity) = (0, 0, capacity);
        self.append(&mut first)?;
        if self.writing.sync {
            self.files.back().expect("just opened").file.sync_all()?;
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Removes the oldest segments, as long as nobody has an entry in them.
    pub(super) fn remove_unused(&mut self) -> io::Result<()> {
        while self.files.len() > 1 && self.files.front().is_some_and(is_unused) {
            let unused = self.files.pop_front().expect("just looked at");
            fs::remove_file(&unused.path)?;
        }
        Ok(())
    }
}

fn is_unused(segment: &Arc<Segment>) -> bool {
    Arc::strong_count(segment) == 1
}

/// Where it fails, later writes take longer, and nothing is lost.
fn write_zeros(file: &File, mut range: std::ops::Range<u64>) {
    while !range.is_empty() {
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let zeros = &ZEROS[..left.min(ZEROS.len())];
        if file.write_all_at(zeros, range.start).is_err() {
            return;
        }
        range.start += zeros.len() as u64;
    }
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(io::Error::other)?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        // Not all file systems can: then it grows as it is written.
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Whence, lseek};
    use openraft::EntryPayload;

    use super::super::super::types::{Batch, Entry};
    use super::super::offline::log_id;
    use super::super::{last, read};
    use super::*;

    const WRITING: Writing = Writing { sync: true, allocate: true };

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry::new(log_id(1, index), EntryPayload::Normal(Batch(vec![7; bytes].into())))
    }

    /// Opens, appends an entry in a write of its own for each index, closes.
    fn append(dir: &Path, indexes: std::ops::RangeInclusive<u64>, bytes: usize) {
        let (mut segments, Contents { meta, .. }) = Segments::open(dir, WRITING).expect("opens");
        for index in indexes {
            let mut frame = Frame::new();
            frame.entry(&entry(index, bytes)).expect("small");
            segments.write(&mut frame, &meta).expect("written");
        }
    }

    fn indexes(contents: &Contents) -> Vec<u64> {
        let all = contents.places.range(0, u64::MAX);
        all.map(|place| read(place).expect("readable").index()).collect()
    }

    fn opened(dir: &Path) -> io::Result<Vec<u64>> {
        Segments::open(dir, WRITING).map(|(_, contents)| indexes(&contents))
    }

    fn newest(dir: &Path) -> PathBuf {
        list(dir).expect("readable").pop().expect("one").1
    }

    /// Changes the bytes of the newest file; the closure is also given where its frames end.
    fn change(dir: &Path, change: impl FnOnce(&mut Vec<u8>, usize)) {
        let path = newest(dir);
        let mut bytes = fs::read(&path).expect("readable");
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        change(&mut bytes, end);
        fs::write(path, bytes).expect("written");
    }

    #[test]
    fn what_a_crash_tore_is_forgotten_and_never_comes_back() {
        for cut in [1, 9, 40, 300] {
            let dir = tempfile::tempdir().expect("temporary folder");
            append(dir.path(), 0..=5, 200);
            // The last frame in part, as if its first page had not been written.
            change(dir.path(), |bytes, end| bytes[end - cut.min(200)] ^= 1);
            assert_eq!(
                inspect(dir.path()).map(|found| indexes(&found)).expect("readable"),
                [0, 1, 2, 3, 4]
            );
            append(dir.path(), 5..=5, 10);
            assert_eq!(opened(dir.path()).expect("opens"), [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn damage_that_later_writes_follow_is_no_crash() {
        let dir = tempfile::tempdir().expect("temporary folder");
        append(dir.path(), 0..=5, 200);
        change(dir.path(), |bytes, end| bytes[end / 2] ^= 1);
        for error in
            [opened(dir.path()).expect_err("damaged"), inspect(dir.path()).expect_err("damaged")]
        {
            assert!(error.to_string().contains("the raft log is damaged"), "{error}");
            assert!(error.to_string().contains("later writes follow"), "{error}");
        }
    }

    #[test]
    fn a_damaged_beginning_is_no_unused_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        append(dir.path(), 0..=5, 200);
        change(dir.path(), |bytes, _| bytes[20] ^= 1);
        let error = opened(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("later writes follow"), "{error}");
    }

    #[test]
    fn damage_at_the_end_of_an_earlier_file_is_no_crash() {
        let dir = tempfile::tempdir().expect("temporary folder");
        append(dir.path(), 0..=9, 5 << 20);
        let (_, first) = list(dir.path()).expect("readable").swap_remove(0);
        let file = OpenOptions::new().write(true).open(&first).expect("opens");
        let length = file.metadata().expect("known").len();
        file.set_len(length - 100).expect("cut");
        let error = opened(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("a later segment follows"), "{error}");
        fs::remove_file(newest(dir.path())).expect("removed");
        assert_eq!(opened(dir.path()).expect("opens").len(), 5, "the last one may be torn");
    }

    #[test]
    fn a_file_without_a_frame_was_never_used() {
        let dir = tempfile::tempdir().expect("temporary folder");
        append(dir.path(), 0..=5, 200);
        let (path, next) = (newest(dir.path()), dir.path().join("0000000000000009.wal"));
        for left in [vec![], vec![0; 4096], vec![1; 300]] {
            fs::write(&next, left).expect("written");
            assert_eq!(opened(dir.path()).expect("opens"), [0, 1, 2, 3, 4, 5]);
            assert_eq!(newest(dir.path()), path);
        }
    }

    #[test]
    fn a_missing_file_is_noticed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        append(dir.path(), 0..=19, 5 << 20);
        let files = list(dir.path()).expect("readable");
        assert!(files.len() > 2, "{files:?}");
        fs::remove_file(&files[1].1).expect("removed");
        let error = opened(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("instead of"), "{error}");
    }

    #[test]
    fn files_go_with_their_last_entry_and_what_is_not_an_entry_stays() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (mut segments, mut contents) = Segments::open(dir.path(), WRITING).expect("opens");
        let vote = Vote::new_committed(3, 1);
        let mut frame = Frame::new();
        frame.vote(&vote).expect("small");
        segments.write(&mut frame, &contents.meta).expect("written");
        contents.meta.vote = Some(vote);
        for index in 0..20 {
            let mut frame = Frame::new();
            let span = frame.entry(&entry(index, 5 << 20)).expect("small");
            let (segment, offset) = segments.write(&mut frame, &contents.meta).expect("written");
            let offset = offset + span.start as u64;
            let length = u32::try_from(span.length).expect("small");
            contents.places.push(index, Place { segment, offset, length }).expect("in order");
        }
        let files = list(dir.path()).expect("readable").len();
        let cut = |segments: &mut Segments, contents: &mut Contents, upto| {
            let mut frame = Frame::new();
            frame.purged(&log_id(1, upto)).expect("small");
            segments.write(&mut frame, &contents.meta).expect("written");
            contents.meta.purged = Some(log_id(1, upto));
            contents.places.purge(upto);
            segments.remove_unused().expect("removed");
            list(dir.path()).expect("readable").len()
        };
        assert_eq!(cut(&mut segments, &mut contents, 2), files, "others are in there, too");
        assert_eq!(cut(&mut segments, &mut contents, 15), files - 2);
        assert_eq!(cut(&mut segments, &mut contents, 19), 1, "the one that is written to");
        drop(segments);
        let (_, again) = Segments::open(dir.path(), WRITING).expect("opens");
        assert_eq!(again.meta, contents.meta);
        assert!(again.places.is_empty());
        assert_eq!(last(&again.places).expect("readable"), None);
    }

    #[test]
    fn what_comes_next_was_written_before_and_is_empty() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for round in 0..3 {
            let (mut segments, Contents { meta, .. }) =
                Segments::open(dir.path(), WRITING).expect("opens");
            for index in 0..40 {
                let mut frame = Frame::new();
                frame.entry(&entry(40 * round + index, 50_000)).expect("small");
                segments.write(&mut frame, &meta).expect("written");
                let file = &segments.files.back().expect("one is open").file;
                let end = segments.offset.cast_signed();
                let hole = lseek(file, end, Whence::SeekHole).expect("knows its holes");
                assert!(hole >= end && hole >= segments.ready.cast_signed(), "{hole}, {end}");
                let mut ahead = vec![1; 1 << 20];
                file.read_exact_at(&mut ahead, segments.offset).expect("has its size");
                assert!(ahead.iter().all(|byte| *byte == 0));
            }
        }
        assert_eq!(opened(dir.path()).expect("opens").len(), 120);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let first = Segments::open(dir.path(), WRITING).expect("opens");
        let error = Segments::open(dir.path(), WRITING).expect_err("locked").to_string();
        assert!(error.contains("the lock is held"), "{error}");
        drop(first);
        Segments::open(dir.path(), WRITING).expect("opens");
    }

    #[test]
    fn a_frame_larger_than_a_file_has_one_of_its_own() {
        let dir = tempfile::tempdir().expect("temporary folder");
        append(dir.path(), 0..=2, 40 << 20);
        assert_eq!(opened(dir.path()).expect("opens"), [0, 1, 2]);
        assert_eq!(list(dir.path()).expect("readable").len(), 4);
    }
}
