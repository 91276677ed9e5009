//! A forward iterator over one column family, with a batch's writes merged in.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::iter::Peekable;

use bytes::Bytes;
use rocksdb::DBRawIterator;

use crate::Fault;
use crate::keyspace::{Record, RecordRef};

/// Stands on an entry, or at the end.
pub(crate) struct Cursor<'a> {
    stored: DBRawIterator<'a>,
    written: Option<Peekable<btree_map::Range<'a, Bytes, Option<Record>>>>,
    side: Side,
}

/// Where the entry comes from. A written one hides the stored one of the same key.
#[derive(Clone, Copy)]
enum Side {
    End,
    Stored,
    Written { hides_stored: bool },
}

impl<'a> Cursor<'a> {
    /// `stored` is already placed; both are bounded alike.
    pub(super) fn new(
        stored: DBRawIterator<'a>,
        written: Option<btree_map::Range<'a, Bytes, Option<Record>>>,
    ) -> Result<Self, Fault> {
        let written = written.map(Iterator::peekable);
        let mut cursor = Self { stored, written, side: Side::End };
        cursor.settle()?;
        Ok(cursor)
    }

    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.side, Side::End)
    }

    pub(super) fn key(&mut self) -> Option<&[u8]> {
        match self.side {
            Side::End => None,
            Side::Stored => self.stored.key(),
            Side::Written { .. } => self.written.as_mut()?.peek().map(|(key, _)| key.as_ref()),
        }
    }

    pub(super) fn record(&mut self) -> Result<Option<RecordRef<'_>>, Fault> {
        Ok(self.item()?.map(|(_, record)| record))
    }

    pub(super) fn item(&mut self) -> Result<Option<(&[u8], RecordRef<'_>)>, Fault> {
        match self.side {
            Side::End => Ok(None),
            Side::Stored => match self.stored.item() {
                Some((key, value)) => Ok(Some((key, RecordRef::decode(value)?))),
                None => Ok(None),
            },
            Side::Written { .. } => {
                let entry = self.written.as_mut().and_then(|written| written.peek().copied());
                Ok(entry.and_then(|(key, record)| Some((key.as_ref(), record.as_ref()?.as_ref()))))
            }
        }
    }

    pub(super) fn advance(&mut self) -> Result<(), Fault> {
        self.step();
        self.settle()
    }

    /// Goes on to the first entry at or after `key`, which must not lie behind.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<(), Fault> {
        self.stored.seek(key);
        if let Some(written) = &mut self.written {
            while written.next_if(|(written_key, _)| written_key.as_ref() < key).is_some() {}
        }
        self.settle()
    }

    fn step(&mut self) {
        let (stored, written) = match self.side {
            Side::End => (false, false),
            Side::Stored => (true, false),
            Side::Written { hides_stored } => (hides_stored, true),
        };
        if stored {
            self.stored.next();
        }
        if written && let Some(entries) = &mut self.written {
            entries.next();
        }
    }

    /// Finds the side of the next entry, passing over keys that the batch deleted.
    fn settle(&mut self) -> Result<(), Fault> {
        loop {
            let written = self.written.as_mut().and_then(|written| written.peek().copied());
            self.side = match (written, self.stored.key()) {
                (None, None) => Side::End,
                (None, Some(_)) => Side::Stored,
                (Some(_), None) => Side::Written { hides_stored: false },
                (Some((key, _)), Some(stored)) => match key.as_ref().cmp(stored) {
                    Ordering::Less => Side::Written { hides_stored: false },
                    Ordering::Equal => Side::Written { hides_stored: true },
                    Ordering::Greater => Side::Stored,
                },
            };
            match (self.side, written) {
                (Side::Written { .. }, Some((_, None))) => self.step(),
                (Side::End, _) => return Ok(self.stored.status()?),
                _ => return Ok(()),
            }
        }
    }
}
