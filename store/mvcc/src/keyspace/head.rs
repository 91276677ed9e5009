//! The one entry of `meta`: where the state stands. Written with every batch, so that whatever a
//! crash or a snapshot returns to knows its own revision and the server's place in the log.

use crate::Fault;

/// The key in `meta`.
pub(crate) const KEY: &[u8] = b"head";

const FORMAT: u8 = 2;
const FIXED_BYTES: usize = 1 + 4 * 8;

/// Revision, floor and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The newest revision.
    pub(crate) revision: i64,
    /// The compact floor: the oldest readable revision; −1 before the first compaction.
    pub(crate) floor: i64,
    /// Living keys.
    pub(crate) keys: i64,
    /// Bytes of living keys and their values.
    pub(crate) bytes: i64,
}

impl Default for Head {
    fn default() -> Self {
        Self { revision: 1, floor: -1, keys: 0, bytes: 0 }
    }
}

impl Head {
    /// The entry, with the server's opaque bytes at its end.
    pub(crate) fn encode(&self, applied: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + applied.len());
        out.push(FORMAT);
        for field in [self.revision, self.floor, self.keys, self.bytes] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(applied);
        out
    }

    /// The head and the server's bytes.
    pub(crate) fn decode(input: &[u8]) -> Result<(Self, &[u8]), Fault> {
        let corrupt = Fault::Corrupt { what: "head" };
        let Some((&[FORMAT, ref fields @ ..], applied)) = input.split_first_chunk::<FIXED_BYTES>()
        else {
            return Err(corrupt);
        };
        let mut fields = fields.chunks_exact(8).map(|chunk| {
            i64::from_be_bytes(chunk.try_into().expect("chunks_exact gives eight bytes"))
        });
        let mut next = || fields.next().expect("four fields are in the fixed part");
        let head = Self { revision: next(), floor: next(), keys: next(), bytes: next() };
        Ok((head, applied))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(revision: i64, floor: i64, keys: i64, bytes: i64, applied: Vec<u8>) {
            let head = Head { revision, floor, keys, bytes };
            let encoded = head.encode(&applied);
            prop_assert_eq!(Head::decode(&encoded).expect("just encoded"), (head, applied.as_slice()));
        }
    }

    #[test]
    fn another_format_is_corrupt() {
        let mut encoded = Head::default().encode(b"");
        encoded[0] = 9;
        assert!(Head::decode(&encoded).is_err());
        assert!(Head::decode(&encoded[..10]).is_err());
    }
}
