//! Ranges, in key order, as of one revision.
//!
//! At the newest revision, a scan reads `current` alone and never meets an old version. At an
//! older one, a key's record is either still current or the first in history that ended later;
//! never both, so the two are merged by key.

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

/// The merge for an old revision. Neither side looks further ahead than the other has come, so
/// that a page costs what a page holds, however much has changed since.
pub(crate) struct Older<'a> {
    current: Cursor<'a>,
    history: Cursor<'a>,
    revision: i64,
    side: Side,
    /// The user key, when it stands on history.
    key: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    End,
    Current,
    History,
}

/// What to do about the entries that the two cursors stand on.
enum Step {
    Stand(Side),
    PassCurrent,
    PassVersion,
    SeekVersion(Vec<u8>),
    PassKey,
}

impl<'a> Older<'a> {
    fn new(current: Cursor<'a>, history: Cursor<'a>, revision: i64) -> Result<Self, Fault> {
        let mut older = Self { current, history, revision, side: Side::End, key: Vec::new() };
        older.settle()?;
        Ok(older)
    }

    fn item(&mut self) -> Result<Option<(&[u8], RecordRef<'_>)>, Fault> {
        match self.side {
            Side::End => Ok(None),
            Side::Current => self.current.item(),
            Side::History => {
                let record = self.history.record()?;
                Ok(record.map(|record| (self.key.as_slice(), record)))
            }
        }
    }

    fn advance(&mut self) -> Result<(), Fault> {
        match self.side {
            Side::End => {}
            Side::Current => self.current.advance()?,
            Side::History => self.pass_key()?,
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Fault> {
        let mut passed = 0;
        loop {
            match self.decide(passed)? {
                Step::Stand(side) => {
                    self.side = side;
                    return Ok(());
                }
                Step::PassCurrent => self.current.advance()?,
                Step::PassVersion => {
                    self.history.advance()?;
                    passed += 1;
                    continue;
                }
                Step::SeekVersion(target) => self.history.seek(&target)?,
                Step::PassKey => self.pass_key()?,
            }
            passed = 0;
        }
    }

    /// `passed` versions of the history's key have just been stepped over.
    fn decide(&mut self, passed: usize) -> Result<Step, Fault> {
        let Some((encoded, version)) = self.history.item()? else {
            return Ok(match self.current.record()? {
                None => Step::Stand(Side::End),
                Some(record) => Self::about_current(&record, self.revision),
            });
        };
        let (prefix, ended) = history::split(encoded)?;
        let user_key = history::user_key(prefix)?;
        if let Some((key, record)) = self.current.item()?
            && key < user_key.as_ref()
        {
            return Ok(Self::about_current(&record, self.revision));
        }
        if ended <= self.revision {
            if passed < STEPS_MAX {
                return Ok(Step::PassVersion);
            }
            let mut target = prefix.to_vec();
            target.extend_from_slice(&(self.revision + 1).to_be_bytes());
            return Ok(Step::SeekVersion(target));
        }
        if version.modified > self.revision {
            // All later versions of the key began after the revision, too.
            return Ok(Step::PassKey);
        }
        self.key.clear();
        self.key.extend_from_slice(&user_key);
        Ok(Step::Stand(Side::History))
    }

    fn about_current(record: &RecordRef<'_>, revision: i64) -> Step {
        if record.modified <= revision { Step::Stand(Side::Current) } else { Step::PassCurrent }
    }

    /// Leaves the key that the history stands on.
    fn pass_key(&mut self) -> Result<(), Fault> {
        let Some(encoded) = self.history.key() else { return Ok(()) };
        let prefix = history::split(encoded)?.0.to_vec();
        for _ in 0..STEPS_MAX {
            self.history.advance()?;
            if self.history.key().is_none_or(|key| !key.starts_with(&prefix)) {
                return Ok(());
            }
        }
        let mut past = prefix;
        past.extend_from_slice(&[0xff; 8]);
        self.history.seek(&past)
    }
}
