//! What one synced write of the log holds: a frame of items behind its length, a checksum and a
//! number. Frames are numbered without a gap, so that what a crash tore (the last one, which nobody
//! was told of) is told apart from damage (a frame that others follow).

use std::io;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;

use super::super::convert::entry_to_pb;
use super::super::types::{Entry, LogId, Vote};
use super::codec;

/// Length of the items, checksum of everything behind it, number.
const HEADER: usize = 16;
/// Frames begin at multiples of this.
const ALIGN: usize = 8;
/// Kind and length of an item.
const ITEM: usize = 5;

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const PURGED: u8 = 4;
const TRUNCATE: u8 = 5;

/// What the log was told.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// An encoded `raft.Entry`, and where in the frame it lies.
    Entry(Bytes, Span),
    Vote(Vote),
    Committed(LogId),
    /// Everything up to here is gone.
    Purged(LogId),
    /// Everything from here on is gone.
    Truncate(u64),
}

/// A place in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) length: usize,
}

/// A frame that is being filled.
#[derive(Debug)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    pub(super) fn new() -> Self {
        Self(vec![0; HEADER])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == HEADER
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> io::Result<Span> {
        let message = entry_to_pb(entry);
        let length = message.encoded_len();
        self.begin(ENTRY, length)?;
        let start = self.0.len();
        message.encode(&mut self.0).map_err(io::Error::other)?;
        Ok(Span { start, length })
    }

    pub(super) fn vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.put(VOTE, &codec::encode(vote)?)
    }

    pub(super) fn committed(&mut self, id: &LogId) -> io::Result<()> {
        self.put(COMMITTED, &codec::encode(id)?)
    }

    pub(super) fn purged(&mut self, upto: &LogId) -> io::Result<()> {
        self.put(PURGED, &codec::encode(upto)?)
    }

    pub(super) fn truncate(&mut self, from: u64) -> io::Result<()> {
        self.put(TRUNCATE, &from.to_le_bytes())
    }

    fn put(&mut self, kind: u8, value: &[u8]) -> io::Result<()> {
        self.begin(kind, value.len())?;
        self.0.extend_from_slice(value);
        Ok(())
    }

    fn begin(&mut self, kind: u8, length: usize) -> io::Result<()> {
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.0.put_u8(kind);
        self.0.put_u32_le(length);
        Ok(())
    }

    /// Completes it: what goes into the file.
    pub(super) fn seal(&mut self, number: u64) -> io::Result<&[u8]> {
        let length = u32::try_from(self.0.len() - HEADER).map_err(io::Error::other)?;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[8..HEADER].copy_from_slice(&number.to_le_bytes());
        let checksum = crc32fast::hash(&self.0[8..]);
        self.0[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        Ok(&self.0)
    }
}

/// What lies at some place of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A frame, its items, and where the next one begins.
    Frame { number: u64, items: Vec<Item>, next: usize },
    /// Nothing was written here.
    Nothing,
    /// No frame.
    Broken,
}

/// Looks at what lies at `at`.
pub(super) fn read(file: &Bytes, at: usize) -> Found {
    let Some((number, end)) = whole(file, at) else {
        let rest = file.get(at..).unwrap_or_default();
        let unwritten = rest.iter().take(HEADER).all(|byte| *byte == 0);
        return if unwritten { Found::Nothing } else { Found::Broken };
    };
    match items(&file.slice(at..end)) {
        Some(items) => Found::Frame { number, items, next: end.next_multiple_of(ALIGN) },
        None => Found::Broken,
    }
}

/// The number and the end of the frame at `at`, if there is one.
fn whole(file: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut header = file.get(at..at + HEADER)?;
    let length = usize::try_from(header.get_u32_le()).ok().filter(|length| *length > 0)?;
    let (checksum, number) = (header.get_u32_le(), header.get_u64_le());
    let end = at.checked_add(HEADER)?.checked_add(length)?;
    let checked = file.get(at + 8..end)?;
    (crc32fast::hash(checked) == checksum).then_some((number, end))
}

/// Whether a frame begins anywhere behind `at` that comes after `number`, where that is known.
pub(super) fn follows(file: &[u8], at: usize, number: Option<u64>) -> bool {
    /// More do not fit into a file.
    const AHEAD_MAX: u64 = 1 << 24;
    let later = match number {
        Some(number) => number + 1..=number.saturating_add(AHEAD_MAX),
        None => 1..=u64::MAX,
    };
    // The number alone rules out nearly every place, so checksums are seldom made.
    let is_later = |at: usize| {
        let found = file.get(at + 8..at + HEADER).map(|mut bytes| bytes.get_u64_le());
        found.is_some_and(|found| later.contains(&found))
    };
    let mut places = (at.next_multiple_of(ALIGN)..file.len()).step_by(ALIGN);
    places.any(|at| is_later(at) && whole(file, at).is_some())
}

fn items(frame: &Bytes) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut at = HEADER;
    while at < frame.len() {
        let mut head = frame.get(at..at + ITEM)?;
        let (kind, length) = (head.get_u8(), usize::try_from(head.get_u32_le()).ok()?);
        let start = at + ITEM;
        at = start.checked_add(length)?;
        let value = frame.get(start..at)?;
        items.push(match kind {
            ENTRY => Item::Entry(frame.slice(start..at), Span { start, length }),
            VOTE => Item::Vote(codec::decode(value).ok()?),
            COMMITTED => Item::Committed(codec::decode(value).ok()?),
            PURGED => Item::Purged(codec::decode(value).ok()?),
            TRUNCATE => Item::Truncate(u64::from_le_bytes(value.try_into().ok()?)),
            _ => return None,
        });
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;

    use super::super::offline::log_id;
    use super::*;

    fn sealed(number: u64, index: u64) -> Vec<u8> {
        let mut frame = Frame::new();
        frame.truncate(index).expect("short");
        frame.purged(&log_id(3, index)).expect("short");
        frame.seal(number).expect("short").to_vec()
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let vote = Vote::new_committed(3, 1);
        let mut frame = Frame::new();
        assert!(frame.is_empty());
        let entry = Entry::new(log_id(3, 7), openraft::EntryPayload::Blank);
        let span = frame.entry(&entry).expect("short");
        frame.vote(&vote).expect("short");
        frame.committed(&log_id(3, 6)).expect("short");
        let bytes = Bytes::copy_from_slice(frame.seal(9).expect("short"));
        let encoded = bytes.slice(span.start..span.start + span.length);
        let expected =
            vec![Item::Entry(encoded, span), Item::Vote(vote), Item::Committed(log_id(3, 6))];
        let found = read(&bytes, 0);
        assert_eq!(found, Found::Frame { number: 9, items: expected, next: bytes.len() });
        assert_eq!(read(&bytes, bytes.len()), Found::Nothing);
        assert_eq!(read(&Bytes::from(vec![0; 100]), 0), Found::Nothing);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_no_frame() {
        let whole = sealed(1, 7);
        let length = usize::try_from((&whole[..4]).get_u32_le()).expect("small");
        for at in 0..HEADER + length {
            let cut = Bytes::copy_from_slice(&whole[..at]);
            assert!(!matches!(read(&cut, 0), Found::Frame { .. }), "cut off at {at}");
            for flip in [1, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                assert_eq!(read(&changed.into(), 0), Found::Broken, "changed at {at}");
            }
        }
    }

    #[test]
    fn a_later_frame_is_found_behind_a_broken_one() {
        let (mut broken, later) = (sealed(4, 7), sealed(5, 8));
        broken[20] ^= 1;
        let file = [broken.as_slice(), &later].concat();
        assert!(follows(&file, 0, Some(4)));
        assert!(!follows(&file, 0, Some(5)), "the broken one itself may be torn");
        assert!(!follows(&broken, 0, Some(4)));
        assert!(follows(&file, 0, None) && !follows(&broken, 0, None));
    }
}
