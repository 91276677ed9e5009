//! What may be tuned about the database, with the reason for each default.

/// Sizes of the database's caches and buffers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Uncompressed blocks kept in memory, over all column families. Bounds the memory of reads.
    pub block_cache_bytes: usize,
    /// Unflushed writes kept in memory, over all column families. Also bounds how much of the log
    /// is replayed after a crash.
    pub write_buffer_bytes: usize,
    /// Newest records of keys written lately that the writer keeps at hand.
    pub recent_bytes: usize,
    /// Changes that wait in memory until they are written to the database together, sorted. More make writes
    /// cheaper, and the first read of a range after many writes slower.
    pub pending_bytes: usize,
    /// Whether a thread of its own writes them, so that apply goes on meanwhile; without it apply does that on the
    /// spot, as a simulation needs it.
    pub pending_thread: bool,
    /// Threads for flushes and compactions.
    pub background_jobs: u32,
    /// Keys of a range are counted in buckets of at most this many: more make counting slower at
    /// the ends of a range, fewer make more buckets, which the writer keeps in memory.
    pub count_bucket_keys_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 64 << 20,
            recent_bytes: 64 << 20,
            pending_bytes: 16 << 20,
            pending_thread: true,
            background_jobs: 2,
            count_bucket_keys_max: 1_024,
        }
    }
}
