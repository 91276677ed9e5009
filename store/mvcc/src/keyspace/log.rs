//! `log`: what happened, in order. Key: revision and position in it, big-endian. Value: what
//! happened, and the user key. Values are not repeated here: a watcher that catches up finds them
//! in `current` or `history`.

use crate::Fault;

pub(crate) const KEY_BYTES: usize = 12;

/// What happened to a key. The discriminants are on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Change {
    Update = 0,
    Delete = 1,
    Create = 2,
}

impl Change {
    /// By how much it changes the number of keys.
    pub(crate) fn population(self) -> i64 {
        match self {
            Self::Update => 0,
            Self::Delete => -1,
            Self::Create => 1,
        }
    }
}

pub(crate) fn key(revision: i64, sub: u32) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out[..8].copy_from_slice(&revision.to_be_bytes());
    out[8..].copy_from_slice(&sub.to_be_bytes());
    out
}

/// The revision; `None` when the key is too short to hold one.
pub(crate) fn revision(key: &[u8]) -> Option<i64> {
    key.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes))
}

/// Revision and position.
pub(crate) fn split(key: &[u8]) -> Result<(i64, u32), Fault> {
    let corrupt = Fault::Corrupt { what: "log key" };
    let Some((revision, sub)) = key.split_first_chunk::<8>() else { return Err(corrupt) };
    let sub = sub.try_into().map_err(|_| corrupt)?;
    Ok((i64::from_be_bytes(*revision), u32::from_be_bytes(sub)))
}

/// Writes over `out`, which callers reuse.
pub(crate) fn encode(change: Change, user_key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(change as u8);
    out.extend_from_slice(user_key);
}

pub(crate) fn decode(value: &[u8]) -> Result<(Change, &[u8]), Fault> {
    match value.split_first() {
        Some((0, user_key)) => Ok((Change::Update, user_key)),
        Some((1, user_key)) => Ok((Change::Delete, user_key)),
        Some((2, user_key)) => Ok((Change::Create, user_key)),
        _ => Err(Fault::Corrupt { what: "log entry" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(rev in 0i64.., sub: u32, kind in 0usize..3, user_key: Vec<u8>) {
            let change = [Change::Update, Change::Delete, Change::Create][kind];
            let mut value = Vec::new();
            encode(change, &user_key, &mut value);
            prop_assert_eq!(decode(&value).expect("just encoded"), (change, user_key.as_slice()));
            prop_assert_eq!(revision(&key(rev, sub)), Some(rev));
            prop_assert_eq!(split(&key(rev, sub)).expect("just encoded"), (rev, sub));
        }

        #[test]
        fn order_is_by_revision_then_position(a: (u32, u32), b: (u32, u32)) {
            let encoded = key(i64::from(a.0), a.1).cmp(&key(i64::from(b.0), b.1));
            prop_assert_eq!(encoded, a.cmp(&b));
        }
    }

    #[test]
    fn an_unknown_change_is_corrupt() {
        assert!(decode(&[3, b'a']).is_err());
        assert!(decode(&[]).is_err());
    }
}
