//! The log as earlier versions kept it, in a RocksDB, is taken over when a member starts.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use rocksdb::{DB, IteratorMode, Options};

use super::super::convert::entry_from_bytes;
use super::codec;
use super::frame::Frame;
use super::segments::{Meta, Segments, Writing, is_segment, sync_dir};

/// A file that every RocksDB has.
const MARK: &str = "CURRENT";
const ENTRIES: &str = "log";
const META: &str = "meta";
/// One write of the new log.
const FRAME_BYTES: usize = 4 << 20;

/// Where the new log is made, inside the old one's folder: that may be a disk of its own.
const COPYING: &str = "copying";
/// Its name once it is complete.
const COPIED: &str = "copied";

/// Takes over what is under `dir`, if that is a log of earlier versions. It stays as it is until all of
/// it was written anew; a start that was cut off begins again, or goes on.
pub(super) fn import(dir: &Path) -> io::Result<()> {
    let (copying, copied) = (dir.join(COPYING), dir.join(COPIED));
    if is_earlier(dir) && !copied.exists() {
        tracing::info!(dir = %dir.display(), "taking over the log of an earlier version");
        if copying.exists() {
            fs::remove_dir_all(&copying)?;
        }
        copy(dir, &copying)?;
        fs::rename(&copying, &copied)?;
        sync_dir(dir)?;
    }
    if copied.exists() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_file() && !is_segment(&path) {
                fs::remove_file(path)?;
            }
        }
        for entry in fs::read_dir(&copied)? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| is_segment(&path)) {
                fs::rename(&path, dir.join(name))?;
            }
        }
        sync_dir(dir)?;
        fs::remove_dir_all(&copied)?;
    }
    Ok(())
}

/// Whether a log is kept as earlier versions did.
pub(super) fn is_earlier(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    // Not read-only: a member of the earlier version that still runs holds its lock.
    let db = DB::open_cf(&Options::default(), from, [ENTRIES, META]).map_err(io::Error::other)?;
    let family = |name: &str| db.cf_handle(name).expect("opened by this name");
    let value = |key: &str| db.get_cf(family(META), key).map_err(io::Error::other);
    let read = |key: &str| value(key).map(|value| value.unwrap_or_default());
    let (vote, purged, committed) = (read("vote")?, read("purged")?, read("committed")?);
    let (mut segments, _) = Segments::open(to, Writing { sync: true, allocate: true })?;
    let mut meta = Meta::default();
    let mut frame = Frame::new();
    if !purged.is_empty() {
        let purged = codec::decode(&purged)?;
        frame.purged(&purged)?;
        meta.purged = Some(purged);
    }
    if !vote.is_empty() {
        let vote = codec::decode(&vote)?;
        frame.vote(&vote)?;
        meta.vote = Some(vote);
    }
    for item in db.iterator_cf(family(ENTRIES), IteratorMode::Start) {
        let (_, value) = item.map_err(io::Error::other)?;
        frame.entry(&entry_from_bytes(Bytes::from(value))?)?;
        if frame.len() >= FRAME_BYTES {
            segments.write(&mut frame, &meta)?;
            frame = Frame::new();
        }
    }
    if !committed.is_empty() {
        frame.committed(&codec::decode(&committed)?)?;
    }
    if !frame.is_empty() {
        segments.write(&mut frame, &meta)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    use super::super::super::convert::entry_to_bytes;
    use super::super::super::types::{Batch, Entry, Vote};
    use super::super::offline::log_id;
    use super::super::segments::inspect;
    use super::super::{last, read};
    use super::*;

    fn earlier(dir: &Path) {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = DB::open_cf(&options, dir, [ENTRIES, META]).expect("opens");
        let put = |family: &str, key: &[u8], value: Vec<u8>| {
            db.put_cf(db.cf_handle(family).expect("made"), key, value).expect("written");
        };
        for index in 5_u64..=9 {
            let payload = EntryPayload::Normal(Batch(vec![7; 2 << 20].into()));
            let entry = Entry::new(log_id(2, index), payload);
            put(ENTRIES, &index.to_be_bytes(), entry_to_bytes(&entry));
        }
        put(META, b"vote", codec::encode(&Vote::new_committed(2, 1)).expect("encoded"));
        put(META, b"purged", codec::encode(&log_id(1, 4)).expect("encoded"));
        put(META, b"committed", codec::encode(&log_id(2, 8)).expect("encoded"));
    }

    fn check(dir: &Path) {
        let contents = inspect(dir).expect("readable");
        let meta = Meta {
            vote: Some(Vote::new_committed(2, 1)),
            committed: Some(log_id(2, 8)),
            purged: Some(log_id(1, 4)),
        };
        assert_eq!(contents.meta, meta);
        assert_eq!(last(&contents.places).expect("readable"), Some(log_id(2, 9)));
        let all = contents.places.range(0, u64::MAX).map(|place| read(place).expect("readable"));
        assert_eq!(all.map(|entry| entry.index()).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        let rest =
            fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
        assert!(rest.into_iter().all(|path| is_segment(&path)), "nothing else is left");
    }

    #[test]
    fn a_log_of_an_earlier_version_is_taken_over() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = folder.path().join("log");
        earlier(&dir);
        import(&dir).expect("taken over");
        check(&dir);
        import(&dir).expect("nothing to do");
        check(&dir);
    }

    #[test]
    fn taking_over_survives_a_crash_anywhere() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = folder.path().join("log");
        earlier(&dir);
        // In the middle of the copy,
        fs::create_dir_all(dir.join(COPYING).join("rest")).expect("made");
        import(&dir).expect("taken over");
        check(&dir);
        // when it was complete and half of the old one was gone,
        let dir = folder.path().join("other");
        earlier(&dir);
        copy(&dir, &dir.join(COPIED)).expect("copied");
        fs::remove_file(dir.join(MARK)).expect("removed");
        // and when some of the new one had its place.
        let mut segments = fs::read_dir(dir.join(COPIED)).expect("readable");
        let first = segments
            .find_map(|entry| entry.ok().map(|entry| entry.path()).filter(|path| is_segment(path)));
        let first = first.expect("one at least");
        fs::rename(&first, dir.join(first.file_name().expect("a name"))).expect("renamed");
        import(&dir).expect("taken over");
        check(&dir);
    }
}
