//! The newest head, and whether it is being replaced: a sequence lock around the one writer.
//!
//! A reader that sees the same even number before and after has read the state of that head, as
//! if it had held a snapshot. One that was disturbed takes a real one.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use crate::Fault;
use crate::keyspace::Head;

#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Odd while a batch is being written.
    sequence: AtomicU64,
    revision: AtomicI64,
    floor: AtomicI64,
    keys: AtomicI64,
    bytes: AtomicI64,
}

impl Published {
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn bytes(&self) -> i64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes, then publishes what was written. Only the one writer may call this. After a fault
    /// readers stay on snapshots.
    pub(super) fn publish(
        &self,
        head: &Head,
        write: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before | 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        write()?;
        self.floor.store(head.floor, Ordering::Relaxed);
        self.keys.store(head.keys, Ordering::Relaxed);
        self.bytes.store(head.bytes, Ordering::Relaxed);
        self.revision.store(head.revision, Ordering::Release);
        self.sequence.store((before | 1) + 1, Ordering::Release);
        Ok(())
    }

    /// What `read` found, if nothing was written while it looked.
    pub(crate) fn undisturbed<T>(&self, read: impl FnOnce(Head) -> T) -> Option<T> {
        let before = self.sequence.load(Ordering::Acquire);
        if before % 2 == 1 {
            return None;
        }
        let found = read(Head {
            revision: self.revision.load(Ordering::Relaxed),
            floor: self.floor.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        });
        fence(Ordering::SeqCst);
        (self.sequence.load(Ordering::Relaxed) == before).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(revision: i64) -> Head {
        Head { revision, ..Head::default() }
    }

    #[test]
    fn an_undisturbed_read_sees_the_newest_head() {
        let published = Published::default();
        published.publish(&head(7), || Ok(())).expect("written");
        assert_eq!(published.undisturbed(|head| head.revision), Some(7));
        assert_eq!(published.revision(), 7);
    }

    #[test]
    fn a_read_during_a_write_does_not_count() {
        let published = Published::default();
        let during = || {
            assert_eq!(published.undisturbed(|_| ()), None);
            Ok(())
        };
        published.publish(&head(7), during).expect("written");
        let disturbed = published.undisturbed(|_| {
            published.publish(&head(8), || Ok(())).expect("written");
        });
        assert_eq!(disturbed, None);
    }

    #[test]
    fn after_a_fault_nothing_counts() {
        let published = Published::default();
        let fault = published.publish(&head(7), || Err(Fault::Corrupt { what: "disk" }));
        assert!(fault.is_err());
        assert_eq!(published.undisturbed(|_| ()), None);
    }
}
