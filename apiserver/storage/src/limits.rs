//! Bounds, with the reason beside each.

use std::time::Duration;

/// Changes that a resource's ring keeps for watchers that catch up: enough for a client that was
/// away for seconds under heavy churn. Older ones are answered with "expired", and the client lists again.
pub(crate) const RING_EVENTS_MAX: usize = 8192;

/// Encoded bytes that a ring may hold beside that, so that large objects do not multiply: 64 MiB.
pub(crate) const RING_BYTES_MAX: usize = 64 << 20;

/// Changes that a cache collects while its first list is under way. When full, the list starts again.
pub(crate) const PENDING_EVENTS_MAX: usize = 65_536;

/// Snapshots kept so that the later pages of a list need not go to the store.
pub(crate) const PAGED_SNAPSHOTS_MAX: usize = 4;

/// Keys asked of the store at once when a cache fills or a list is read at an old revision.
pub(crate) const PAGE_KEYS: i64 = 1000;

/// Events handed to a watcher at once, so that one wake-up does not hold the ring for long.
pub(crate) const WATCH_BATCH_EVENTS: usize = 128;

/// How long a read waits for the cache to reach a revision, as upstream.
pub(crate) const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// How long reads and writes are retried while the store has no leader: longer than an election,
/// shorter than the request's own deadline.
pub(crate) const UNAVAILABLE_RETRY: Duration = Duration::from_secs(10);

/// First and longest pause between two such attempts.
pub(crate) const RETRY_PAUSE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(200));

/// One lease serves all keys of the same lifetime for this long, and for this many keys.
pub(crate) const LEASE_REUSE: (Duration, u32) = (Duration::from_secs(60), 1000);

/// Time between compactions, as upstream.
pub(crate) const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);
