//! The newest head, and whether it is being replaced: a sequence lock around the one writer.
//!
//! A reader that sees the same number before and after has read the state of that head, as if it
//! had held a snapshot. One that was disturbed takes a real one. A write has two phases: while the
//! database is being written, what is remembered of the newest records is the old state still.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use parking_lot::Mutex;

use crate::Fault;
use crate::keyspace::Head;

/// The sequence goes up by so much with each batch; what it is beyond a multiple is the phase.
const BATCH: u64 = 4;
/// Nothing is being written.
const QUIET: u64 = 0;
/// The database is being written.
const WRITING: u64 = 1;
/// The rest is: what is remembered, and the head.
const TURNING: u64 = 2;

#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Held while something is written.
    writing: Mutex<()>,
    sequence: AtomicU64,
    revision: AtomicI64,
    floor: AtomicI64,
    keys: AtomicI64,
    bytes: AtomicI64,
}

/// When a reader looked, and nothing was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Published {
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes, turns over what is remembered of the newest records, and publishes the head. Only the one
    /// writer may call this. After a fault there is only what is remembered, and snapshots where nothing waits to be written.
    pub(super) fn publish<T>(
        &self,
        head: &Head,
        write: impl FnOnce() -> Result<T, Fault>,
        turn: impl FnOnce(T),
    ) -> Result<(), Fault> {
        let _writing = self.writing.lock();
        let quiet = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(quiet + WRITING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let written = write()?;
        self.sequence.store(quiet + TURNING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        turn(written);
        self.floor.store(head.floor, Ordering::Relaxed);
        self.keys.store(head.keys, Ordering::Relaxed);
        self.bytes.store(head.bytes, Ordering::Relaxed);
        self.revision.store(head.revision, Ordering::Release);
        self.sequence.store(quiet + BATCH, Ordering::Release);
        Ok(())
    }

    /// What `read` found in the database, if nothing was written while it looked.
    pub(crate) fn undisturbed<T>(&self, read: impl FnOnce(Head, Moment) -> T) -> Option<T> {
        self.unchanged(QUIET, |head, sequence| read(head, Moment(sequence)))
    }

    /// What `read` found among the records that are remembered, if those stayed while it looked.
    pub(crate) fn unturned<T>(&self, read: impl FnOnce(Head) -> T) -> Option<T> {
        self.unchanged(WRITING, |head, _| read(head))
    }

    /// The same without luck: nothing is written until it has read. `None` after a fault.
    pub(crate) fn alone<T>(&self, read: impl FnOnce(Head, Moment) -> T) -> Option<T> {
        let _writing = self.writing.lock();
        self.undisturbed(read)
    }

    /// The newest floor.
    pub(crate) fn floor(&self) -> i64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> i64 {
        self.keys.load(Ordering::Relaxed)
    }

    fn unchanged<T>(&self, phase_max: u64, read: impl FnOnce(Head, u64) -> T) -> Option<T> {
        let before = self.sequence.load(Ordering::Acquire);
        if before % BATCH > phase_max {
            return None;
        }
        let head = Head {
            revision: self.revision.load(Ordering::Relaxed),
            floor: self.floor.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        };
        let found = read(head, before);
        fence(Ordering::SeqCst);
        let after = self.sequence.load(Ordering::Relaxed);
        let same = after / BATCH == before / BATCH && after % BATCH <= phase_max;
        same.then_some(found)
    }

    /// Whether nothing was written since.
    pub(crate) fn is_still(&self, moment: Moment) -> bool {
        fence(Ordering::SeqCst);
        self.sequence.load(Ordering::Relaxed) == moment.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(revision: i64) -> Head {
        Head { revision, ..Head::default() }
    }

    fn publish(published: &Published, revision: i64) {
        published.publish(&head(revision), || Ok(()), |()| ()).expect("written");
    }

    #[test]
    fn an_undisturbed_read_sees_the_newest_head() {
        let published = Published::default();
        publish(&published, 7);
        assert_eq!(published.undisturbed(|head, _| head.revision), Some(7));
        assert_eq!(published.unturned(|head| head.revision), Some(7));
        assert_eq!(published.revision(), 7);
    }

    #[test]
    fn what_is_remembered_counts_until_it_is_turned_over() {
        let published = Published::default();
        publish(&published, 7);
        let write = || {
            assert_eq!(published.undisturbed(|_, _| ()), None);
            assert_eq!(published.unturned(|head| head.revision), Some(7));
            Ok(())
        };
        let turn = |()| {
            assert_eq!(published.undisturbed(|_, _| ()), None);
            assert_eq!(published.unturned(|_| ()), None);
        };
        published.publish(&head(8), write, turn).expect("written");
        assert_eq!(published.unturned(|head| head.revision), Some(8));
    }

    #[test]
    fn a_read_across_a_write_does_not_count() {
        let published = Published::default();
        publish(&published, 7);
        assert_eq!(published.undisturbed(|_, _| publish(&published, 8)), None);
        assert_eq!(published.unturned(|_| publish(&published, 9)), None);
        let across = |moment| {
            let write = || {
                assert!(!published.is_still(moment));
                Ok(())
            };
            assert!(published.is_still(moment));
            published.publish(&head(10), write, |()| ()).expect("written");
            assert!(!published.is_still(moment));
        };
        assert_eq!(published.undisturbed(|_, moment| across(moment)), None);
    }

    #[test]
    fn after_a_fault_the_database_is_only_read_at_snapshots() {
        let published = Published::default();
        publish(&published, 7);
        let failing = || Err::<(), _>(Fault::Corrupt { what: "disk" });
        assert!(published.publish(&head(8), failing, |()| unreachable!("not written")).is_err());
        assert_eq!(published.alone(|_, _| ()), None);
        assert_eq!(published.undisturbed(|_, _| ()), None);
        assert_eq!(published.unturned(|head| head.revision), Some(7));
    }
}
