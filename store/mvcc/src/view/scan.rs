//! Ranges, in key order, as of one revision.
//!
//! At the newest revision, a scan reads `current` alone and never meets an old version. At an
//! older one, a key's record is either still current or the first in history that ended later;
//! never both, so the two are merged by key.

use std::cmp::Ordering;

use pintle_store_api::KeyRange;

use super::cursor::Cursor;
use super::{View, bounds};
use crate::Fault;
use crate::keyspace::{Family, RecordRef, history};

/// Versions that are stepped over before a seek is cheaper.
const STEPS_MAX: usize = 8;

/// Stands on a record of the range, or at the end.
pub(crate) enum Scan<'a> {
    Newest(Cursor<'a>),
    Older(Box<Older<'a>>),
}

impl<'a> Scan<'a> {
    pub(super) fn open(view: &View<'a>, range: &KeyRange, revision: i64) -> Result<Self, Fault> {
        let (start, end) = bounds(range);
        let current = view.cursor(Family::Current, start, end.map(|end| end.to_vec()))?;
        if revision == view.revision {
            return Ok(Self::Newest(current));
        }
        let first = history::prefix(start);
        let last = end.map(|end| history::prefix(end));
        let history = view.cursor(Family::History, &first, last)?;
        Ok(Self::Older(Box::new(Older::new(current, history, revision)?)))
    }

    pub(crate) fn item(&mut self) -> Result<Option<(&[u8], RecordRef<'_>)>, Fault> {
        match self {
            Self::Newest(cursor) => cursor.item(),
            Self::Older(older) => older.item(),
        }
    }

    pub(crate) fn advance(&mut self) -> Result<(), Fault> {
        match self {
            Self::Newest(cursor) => cursor.advance(),
            Self::Older(older) => older.advance(),
        }
    }

    /// How many records are left, this one included.
    pub(crate) fn count_rest(mut self) -> Result<i64, Fault> {
        let mut count = 0;
        match &mut self {
            Self::Newest(cursor) => {
                while !cursor.is_at_end() {
                    count += 1;
                    cursor.advance()?;
                }
            }
            Self::Older(older) => {
                while older.side != Side::End {
                    count += 1;
                    older.advance()?;
                }
            }
        }
        Ok(count)
    }
}

/// The merge for an old revision.
pub(crate) struct Older<'a> {
    current: Cursor<'a>,
    history: Superseded<'a>,
    revision: i64,
    side: Side,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    End,
    Current,
    History,
}

impl<'a> Older<'a> {
    fn new(current: Cursor<'a>, history: Cursor<'a>, revision: i64) -> Result<Self, Fault> {
        let history = Superseded::new(history, revision)?;
        let mut older = Self { current, history, revision, side: Side::End };
        older.settle()?;
        Ok(older)
    }

    fn item(&mut self) -> Result<Option<(&[u8], RecordRef<'_>)>, Fault> {
        match self.side {
            Side::End => Ok(None),
            Side::Current => self.current.item(),
            Side::History => self.history.item(),
        }
    }

    fn advance(&mut self) -> Result<(), Fault> {
        match self.side {
            Side::End => {}
            Side::Current => self.current.advance()?,
            Side::History => self.history.advance()?,
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Fault> {
        while self.current.record()?.is_some_and(|record| record.modified > self.revision) {
            self.current.advance()?;
        }
        self.side = match (self.current.key(), self.history.key()) {
            (None, None) => Side::End,
            (Some(_), None) => Side::Current,
            (None, Some(_)) => Side::History,
            (Some(current), Some(history)) => match current.cmp(history) {
                Ordering::Less => Side::Current,
                Ordering::Equal | Ordering::Greater => Side::History,
            },
        };
        Ok(())
    }
}

/// Goes over history, standing only on versions that were there at one revision.
struct Superseded<'a> {
    cursor: Cursor<'a>,
    revision: i64,
    /// The user key of the version it stands on; `None` at the end.
    key: Option<Vec<u8>>,
}

impl<'a> Superseded<'a> {
    fn new(cursor: Cursor<'a>, revision: i64) -> Result<Self, Fault> {
        let mut superseded = Self { cursor, revision, key: None };
        superseded.settle()?;
        Ok(superseded)
    }

    fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    fn item(&mut self) -> Result<Option<(&[u8], RecordRef<'_>)>, Fault> {
        let (Some(key), Some(record)) = (self.key.as_deref(), self.cursor.record()?) else {
            return Ok(None);
        };
        Ok(Some((key, record)))
    }

    fn advance(&mut self) -> Result<(), Fault> {
        self.next_key()?;
        self.settle()
    }

    /// From any version of a key to the next one that was there.
    fn settle(&mut self) -> Result<(), Fault> {
        self.key = None;
        let mut steps = 0;
        while let Some((encoded, record)) = self.cursor.item()? {
            let (prefix, ended) = history::split(encoded)?;
            if ended > self.revision {
                if record.modified <= self.revision {
                    self.key = Some(history::user_key(prefix)?.into_owned());
                    return Ok(());
                }
                // This version and all later ones of the key began after the revision.
                self.next_key()?;
                steps = 0;
            } else if steps < STEPS_MAX {
                self.cursor.advance()?;
                steps += 1;
            } else {
                let mut target = prefix.to_vec();
                target.extend_from_slice(&(self.revision + 1).to_be_bytes());
                self.cursor.seek(&target)?;
                steps = 0;
            }
        }
        Ok(())
    }

    /// Leaves the key that the cursor stands on.
    fn next_key(&mut self) -> Result<(), Fault> {
        let Some(encoded) = self.cursor.key() else { return Ok(()) };
        let prefix = history::split(encoded)?.0.to_vec();
        for _ in 0..STEPS_MAX {
            self.cursor.advance()?;
            if self.cursor.key().is_none_or(|key| !key.starts_with(&prefix)) {
                return Ok(());
            }
        }
        let mut past = prefix;
        past.extend_from_slice(&[0xff; 8]);
        self.cursor.seek(&past)
    }
}
