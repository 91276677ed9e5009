//! HashKV: one number for everything that can be read.
//!
//! Members remove old entries at different times, so what counts is not what lies in the files
//! but what is readable between the floor and the revision. Entries are hashed one by one and the
//! sums added up, so that the order in which families are read does not matter.

use pintle_store_api::{Rejection, Revision, pb};

use crate::keyspace::{Family, RecordRef, history};
use crate::outcome::header;
use crate::view::View;
use crate::{Fault, QueryError};

/// `None` when a compaction filter may have been ahead of the snapshot: take a new one.
pub(crate) fn hash_kv(
    view: &View<'_>,
    revision: i64,
) -> Result<Option<pb::HashKvResponse>, QueryError> {
    let floor = view.head.floor;
    if revision > view.revision {
        return Err(Rejection::FutureRevision.into());
    }
    if revision > 0 && revision < floor {
        return Err(Rejection::Compacted(Revision(floor)).into());
    }
    let revision = if revision <= 0 { view.revision } else { revision };

    // Iterators hold on to the files they begin with; filters can only have acted before.
    let mut current = view.iterate(Family::Current, None)?;
    let mut superseded = view.iterate(Family::History, None)?;
    if view.database.flushed_floor() > floor {
        return Ok(None);
    }
    let mut sum = Sum { revision, total: 0 };
    current.seek_to_first();
    while let Some((key, value)) = current.item() {
        sum.add(key, &RecordRef::decode(value)?, i64::MAX);
        current.next();
    }
    current.status().map_err(Fault::from)?;
    superseded.seek_to_first();
    while let Some((encoded, value)) = superseded.item() {
        let (prefix, ended) = history::split(encoded)?;
        if ended > floor {
            sum.add(&history::user_key(prefix)?, &RecordRef::decode(value)?, ended);
        }
        superseded.next();
    }
    superseded.status().map_err(Fault::from)?;
    Ok(Some(pb::HashKvResponse {
        header: header(view.revision),
        hash: sum.fold(),
        compact_revision: floor,
        hash_revision: revision,
    }))
}

struct Sum {
    revision: i64,
    total: u64,
}

impl Sum {
    /// What ended after the revision counts as not ended: a member that is ahead hashes the same.
    fn add(&mut self, key: &[u8], record: &RecordRef<'_>, ended: i64) {
        if record.modified > self.revision {
            return;
        }
        let ended = if ended > self.revision { 0 } else { ended };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        for field in [record.create, record.modified, record.version, record.lease, ended] {
            hasher.update(&field.to_be_bytes());
        }
        hasher.update(record.value);
        self.total = self.total.wrapping_add(u64::from(hasher.finalize()));
    }

    fn fold(&self) -> u32 {
        (self.total ^ (self.total >> 32)) as u32
    }
}
