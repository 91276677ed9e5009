//! What may be tuned about the database, with the reason for each default.

/// Sizes of the database's caches and buffers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Uncompressed blocks kept in memory, over all column families. Bounds the memory of reads.
    pub block_cache_bytes: usize,
    /// Unflushed writes kept in memory, over all column families. Also bounds how much of the log
    /// is replayed after a crash.
    pub write_buffer_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_cache_bytes: 256 << 20, write_buffer_bytes: 64 << 20, background_jobs: 2 }
    }
}
