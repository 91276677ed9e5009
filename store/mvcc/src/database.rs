//! One RocksDB with the column families of [`Family`], and what is asked of it as a whole:
//! flush, checkpoint, removal below the floor, sizes.

mod floor_filter;
mod generations;
mod published;
mod tuning;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use pintle_store_api::pb::AlarmMember;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, FlushOptions, ReadOptions, ReadTier,
    properties,
};

pub(crate) use generations::Generations;
pub(crate) use published::Published;

use crate::alarms::Alarms;
use crate::keyspace::lease::{self, LeaseRecord};
use crate::keyspace::{Family, Head, RecordRef, head, log};
use crate::overlay::Overlay;
use crate::pending::{Asker, Backlog, Pending, Urgency};
use crate::recent::{Recent, is_large};
use crate::{CheckpointInfo, Fault, Options};
use floor_filter::FloorFilterFactory;
use pintle_store_api::Revision;

/// An open database. Dropping the last reference closes it, and removes it if it was retired.
pub(crate) struct Database {
    db: DB,
    published: Published,
    recent: Recent,
    backlog: Backlog,
    /// The raised alarms.
    alarms: ArcSwap<Vec<AlarmMember>>,
    /// The floor that a crash now would come back to: what compaction filters go by.
    flushed_floor: Arc<AtomicI64>,
    /// Declared last: it is dropped when `db` is closed.
    folder: Folder,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.folder.path).finish_non_exhaustive()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let is_retired = self.folder.retired.load(Ordering::Acquire);
        if !is_retired && let Err(fault) = self.settle(Asker::Writer) {
            // The log has it all.
            tracing::warn!(%fault, "what was applied last could not be written");
        }
    }
}

/// The database's folder, removed on drop once it was retired.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    retired: AtomicBool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a replaced state could not be removed");
        }
    }
}

impl Database {
    /// Opens, or makes an empty one.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, Fault> {
        let flushed_floor = Arc::new(AtomicI64::new(-1));
        let tuning = tuning::Tuning::new(options);
        let families = Family::ALL.map(|family| {
            let mut options = tuning.family(family);
            if let Some(factory) = FloorFilterFactory::for_family(family, &flushed_floor) {
                options.set_compaction_filter_factory(factory);
            }
            ColumnFamilyDescriptor::new(family.name(), options)
        });
        let db = DB::open_cf_descriptors(&tuning.database(), path, families)?;
        let folder = Folder { path: path.to_owned(), retired: AtomicBool::new(false) };
        let (published, recent) = (Published::default(), Recent::new(options.recent_bytes));
        let backlog = Backlog::new(options.pending_bytes);
        let alarms = ArcSwap::default();
        let database = Self { db, published, recent, backlog, alarms, flushed_floor, folder };
        let (head, _) = database.load()?;
        database.recent.settled(head.revision);
        database.published.publish(&head, || Ok(()), |()| ())?;
        database.flushed()?;
        Ok(database)
    }

    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    pub(crate) fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("open makes every family and none is dropped")
    }

    /// The newest head in RocksDB and the server's bytes that came with it.
    pub(crate) fn load(&self) -> Result<(Head, Option<Bytes>), Fault> {
        self.load_with(&ReadOptions::default())
    }

    fn load_with(&self, options: &ReadOptions) -> Result<(Head, Option<Bytes>), Fault> {
        let meta = self.family(Family::Meta);
        match self.db.get_pinned_cf_opt(meta, head::KEY, options)? {
            None => Ok((Head::default(), None)),
            Some(stored) => {
                let (head, applied) = Head::decode(&stored)?;
                Ok((head, Some(Bytes::copy_from_slice(applied))))
            }
        }
    }

    /// Makes one batch's changes known, atomically: in memory, like all writes. They go to RocksDB when
    /// many have come together ([`Settler`](crate::settler::Settler)), or somebody needs them there.
    pub(crate) fn write(
        &self,
        mut overlay: Overlay,
        head: &Head,
        applied: &[u8],
        rows: impl FnOnce(&mut Pending),
    ) -> Result<(), Fault> {
        let add = || {
            self.backlog.add(|pending| {
                pending.absorb(&mut overlay, *head, applied);
                rows(pending);
            })?;
            // Those are not kept for point reads, which must find them in RocksDB.
            if overlay.current.values().any(|record| is_large(record.as_ref())) {
                self.settle(Asker::Writer)?;
            }
            Ok(overlay.current)
        };
        self.published.publish(head, add, |written| self.recent.remember(&written, head.revision))
    }

    /// Whether the newest record of a key is in memory, where it stays for the next moment. Only for the
    /// thread that writes, between its writes.
    pub(crate) fn has_at_hand(&self, key: &[u8]) -> bool {
        if self.recent.knows(key) {
            return true;
        }
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        // What is not in memory is an error, too. A real one is met again by whoever reads in earnest.
        let found = self.db.get_pinned_cf_opt(self.family(Family::Current), key, &options);
        let Ok(stored) = found else { return false };
        let record = stored.map(|stored| RecordRef::decode(&stored).map(RecordRef::to_record));
        let Ok(record) = record.transpose() else { return false };
        self.recent.found(key, record.as_ref(), || true);
        true
    }

    /// Brings everything to RocksDB that was written before.
    pub(crate) fn settle(&self, asker: Asker) -> Result<(), Fault> {
        self.backlog.settle(self, asker)
    }

    #[cfg(test)]
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Whether that takes next to no time.
    pub(crate) fn is_nearly_settled(&self) -> bool {
        self.backlog.is_nearly_settled()
    }

    /// Whether it is time to do so.
    pub(crate) fn urgency(&self) -> Urgency {
        self.backlog.urgency()
    }

    /// A lease as it is now, wherever that is known.
    pub(crate) fn lease(&self, id: i64) -> Result<Option<LeaseRecord>, Fault> {
        if let Some(known) = self.backlog.lease(id) {
            return Ok(known);
        }
        let stored = self.db.get_pinned_cf(self.family(Family::Lease), lease::key(id))?;
        stored.map(|stored| lease::decode(&stored)).transpose()
    }

    /// The newest written head.
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// The raised alarms, by kind and member.
    pub(crate) fn alarms(&self) -> Vec<AlarmMember> {
        Vec::clone(&self.alarms.load())
    }

    /// Makes the raised alarms known.
    pub(crate) fn raise(&self, alarms: &Alarms) {
        self.alarms.store(Arc::new(alarms.list()));
    }

    /// The newest records of keys that were written or read lately, as of the published head.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Entries needed only below this may have been removed already. A reader of an old revision
    /// looks here *after* reading: what it found counts only if its revision was not below.
    pub(crate) fn flushed_floor(&self) -> i64 {
        self.flushed_floor.load(Ordering::Acquire)
    }

    pub(crate) fn flush(&self) -> Result<(), Fault> {
        self.settle(Asker::Reader)?;
        let families = Family::ALL.map(|family| self.family(family));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families.each_ref().map(|family| *family), &options)?;
        self.flushed().map(drop)
    }

    /// What is on disk, whoever flushed it; tells the compaction filters its floor.
    pub(crate) fn flushed(&self) -> Result<(Head, Option<Bytes>), Fault> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let (head, applied) = self.load_with(&options)?;
        self.flushed_floor.fetch_max(head.floor, Ordering::AcqRel);
        Ok((head, applied))
    }

    /// Removes what lies below the floor. Whole files of `log` go at once; the rest is rewritten.
    pub(crate) fn remove_below_floor(&self) -> Result<(), Fault> {
        self.flush()?;
        let floor = self.flushed_floor();
        if floor < 0 {
            return Ok(());
        }
        let log = self.family(Family::Log);
        let last = log::key(floor - 1, u32::MAX);
        self.db.delete_file_in_range_cf(log, log::key(0, 0), last)?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(log, None::<&[u8]>, Some(last), &options);
        let history = self.family(Family::History);
        self.db.compact_range_cf_opt(history, None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    /// Bytes in files and in memory.
    pub(crate) fn size(&self) -> Result<u64, Fault> {
        let mut size = self.backlog.bytes() as u64;
        for family in Family::ALL {
            for property in [properties::LIVE_SST_FILES_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES] {
                size += self.db.property_int_value_cf(self.family(family), property)?.unwrap_or(0);
            }
        }
        Ok(size)
    }

    /// Writes a copy into the new folder `dir`.
    pub(crate) fn checkpoint(&self, dir: &Path) -> Result<CheckpointInfo, Fault> {
        self.settle(Asker::Reader)?;
        Checkpoint::new(&self.db)?.create_checkpoint(dir)?;
        let names = Family::ALL.map(Family::name);
        let copy = DB::open_cf_for_read_only(&rocksdb::Options::default(), dir, names, false)?;
        let meta = copy.cf_handle(Family::Meta.name()).expect("opened by this name");
        let stored = copy.get_pinned_cf(meta, head::KEY)?;
        let (head, applied) = match &stored {
            Some(stored) => Head::decode(stored)?,
            None => (Head::default(), &[][..]),
        };
        Ok(CheckpointInfo {
            applied: Bytes::copy_from_slice(applied),
            revision: Revision(head.revision),
            compact_revision: Revision(head.floor),
            keys: head.keys.unsigned_abs(),
            live_bytes: head.bytes.unsigned_abs(),
        })
    }

    /// Another database took its place: remove it when its last reader is gone.
    pub(crate) fn retire(&self) {
        self.folder.retired.store(true, Ordering::Release);
    }
}
