//! Deliberate mistakes. A simulation that does not convict them proves nothing by being clean.

use std::sync::atomic::{AtomicU8, Ordering};

/// A way in which a store may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Broken {
    /// The log says that a write is on disk before it is.
    AcknowledgeBeforeFsync = 1,
    /// A read takes what this member has applied for the newest there is.
    StaleRead = 2,
    /// One revision in some dozens never reaches the watchers that keep up.
    DroppedEvent = 3,
    /// A member that leads no longer goes on to renew leases.
    DoubleLease = 4,
}

/// Process-wide, as the simulation is.
static BROKEN: AtomicU8 = AtomicU8::new(0);

/// Makes every member of this process wrong in this way.
pub fn break_deliberately(broken: Broken) {
    BROKEN.store(broken as u8, Ordering::Relaxed);
}

pub(crate) fn is_broken(broken: Broken) -> bool {
    BROKEN.load(Ordering::Relaxed) == broken as u8
}
