//! How RocksDB is set up, with the reason beside each choice.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options as Rocks};

use crate::Options;
use crate::keyspace::Family;

/// Bits of bloom filter per key: about 1 % false positives.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Of a memtable's budget, for a filter that spares a look for a key that is not in it: about 10 bits
/// for each of a full memtable's records of a few hundred bytes.
const MEMTABLE_BLOOM_RATIO: f64 = 0.01;
/// `current` and `history` hold objects of a few KiB, read alone and in ranges.
const BLOCK_BYTES: usize = 8 << 10;
/// RocksDB's default.
const LEVELS: usize = 7;
/// RocksDB's own log: enough to look into an incident, never a disk full.
const INFO_LOG_BYTES_MAX: usize = 16 << 20;
const INFO_LOG_FILES_MAX: usize = 4;

/// Options for the database and its families, which share one cache.
pub(super) struct Tuning {
    cache: Cache,
    write_buffer_bytes: usize,
    background_jobs: i32,
}

impl Tuning {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            cache: Cache::new_lru_cache(options.block_cache_bytes),
            write_buffer_bytes: options.write_buffer_bytes,
            background_jobs: i32::try_from(options.background_jobs.max(2)).unwrap_or(i32::MAX),
        }
    }

    pub(super) fn database(&self) -> Rocks {
        let mut rocks = Rocks::default();
        rocks.create_if_missing(true);
        rocks.create_missing_column_families(true);
        // Without a write-ahead log, this is what keeps the families together over a crash.
        rocks.set_atomic_flush(true);
        rocks.set_db_write_buffer_size(self.write_buffer_bytes);
        rocks.set_max_background_jobs(self.background_jobs);
        rocks.set_log_level(LogLevel::Warn);
        rocks.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        rocks.set_keep_log_file_num(INFO_LOG_FILES_MAX);
        rocks.set_stats_dump_period_sec(0);
        rocks.set_stats_persist_period_sec(0);
        rocks
    }

    pub(super) fn family(&self, family: Family) -> Rocks {
        let mut rocks = Rocks::default();
        // What is written out first is read the most and rewritten soon.
        let mut levels = [DBCompressionType::Lz4; LEVELS];
        levels[0] = DBCompressionType::None;
        rocks.set_compression_per_level(&levels);
        // One family may take the whole budget; the budget itself is the database's.
        rocks.set_write_buffer_size(self.write_buffer_bytes);
        rocks.set_max_write_buffer_number(4);
        rocks.set_level_compaction_dynamic_level_bytes(true);
        rocks.set_block_based_table_factory(&self.blocks(family));
        if family == Family::Current {
            rocks.set_memtable_whole_key_filtering(true);
            rocks.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        }
        rocks
    }

    fn blocks(&self, family: Family) -> BlockBasedOptions {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_block_size(BLOCK_BYTES);
        blocks.set_format_version(6);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        // Every write first asks whether its key exists; the others here are only scanned.
        if !matches!(family, Family::Log | Family::LeaseKeys | Family::Census) {
            blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
            blocks.set_optimize_filters_for_memory(true);
        }
        blocks
    }
}
