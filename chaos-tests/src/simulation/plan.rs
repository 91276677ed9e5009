//! What a seed stands for: the size of the cluster, its settings, and how rough its life is.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Broken;

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Three or five.
    pub members: usize,
    /// Clients that read and write.
    pub clients: usize,
    /// Keys that they share.
    pub keys: usize,
    /// Watchers of all keys or some.
    pub watchers: usize,
    /// Clients that take turns at locks.
    pub holders: usize,
    /// Simulated milliseconds of work and faults.
    pub duration_ms: u64,
    /// Milliseconds between faults, on average.
    pub calm_ms: u64,
    /// Log entries between snapshots.
    pub snapshot_count: u64,
    /// Log entries that stay after a snapshot.
    pub catchup_entries: u64,
    /// Whether members are added and removed.
    pub changes_members: bool,
    /// Whether members know the log's own connections, or gRPC alone as earlier versions did.
    pub framed_log: bool,
    /// The store's deliberate mistake.
    pub broken: Option<Broken>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, broken: Option<Broken>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let snapshot_count = rng.random_range(30..200);
        Self {
            seed,
            members: if rng.random_bool(0.7) { 3 } else { 5 },
            clients: rng.random_range(3..=6),
            keys: rng.random_range(2..=6),
            watchers: rng.random_range(2..=4),
            holders: rng.random_range(2..=3),
            duration_ms: rng.random_range(6_000..10_000),
            calm_ms: rng.random_range(300..1_500),
            snapshot_count,
            catchup_entries: rng.random_range(5..=snapshot_count / 2),
            changes_members: rng.random_bool(0.3),
            framed_log: rng.random_bool(0.75),
            broken,
        }
    }
}
