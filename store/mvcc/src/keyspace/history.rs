//! Keys of `history`: a user key and the revision that ended one of its versions.
//!
//! The user key is written so that no key is a prefix of another and their order is kept: a zero
//! byte becomes `00 ff`, and `00 01` ends the key. Eight bytes of revision follow, big-endian.

use std::borrow::Cow;

use crate::Fault;

const REVISION_BYTES: usize = 8;
const END: [u8; 2] = [0x00, 0x01];
const ZERO: [u8; 2] = [0x00, 0xff];

/// The key of the version that `ended` ended.
pub(crate) fn key(user_key: &[u8], ended: i64) -> Vec<u8> {
    let mut out = prefix(user_key);
    out.extend_from_slice(&ended.to_be_bytes());
    out
}

/// The same into `out`, which callers reuse.
pub(crate) fn encode(user_key: &[u8], ended: i64, out: &mut Vec<u8>) {
    out.clear();
    append_prefix(user_key, out);
    out.extend_from_slice(&ended.to_be_bytes());
}

/// What all versions of `user_key` begin with, and also the bound before them.
pub(crate) fn prefix(user_key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(user_key.len() + END.len() + REVISION_BYTES);
    append_prefix(user_key, &mut out);
    out
}

/// Looks at every byte, many at once: `contains` looks at one after the other of a short key.
fn has_zero(user_key: &[u8]) -> bool {
    user_key.iter().fold(false, |found, byte| found | (*byte == 0))
}

fn append_prefix(user_key: &[u8], out: &mut Vec<u8>) {
    if !has_zero(user_key) {
        out.extend_from_slice(user_key);
        out.extend_from_slice(&END);
        return;
    }
    let mut parts = user_key.split(|byte| *byte == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&ZERO);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END);
}

/// The revision that ended the version; `None` when the key is too short to hold one.
pub(crate) fn ended(key: &[u8]) -> Option<i64> {
    key.last_chunk::<REVISION_BYTES>().map(|bytes| i64::from_be_bytes(*bytes))
}

/// Splits into [`prefix`] and revision.
pub(crate) fn split(key: &[u8]) -> Result<(&[u8], i64), Fault> {
    let (prefix, revision) =
        key.split_last_chunk::<REVISION_BYTES>().ok_or(Fault::Corrupt { what: "history key" })?;
    Ok((prefix, i64::from_be_bytes(*revision)))
}

/// The user key of a [`prefix`].
pub(crate) fn user_key(prefix: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    let corrupt = Fault::Corrupt { what: "history key" };
    let Some(escaped) = prefix.strip_suffix(&END) else { return Err(corrupt) };
    if !has_zero(escaped) {
        return Ok(Cow::Borrowed(escaped));
    }
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        if rest.get(zero..zero + ZERO.len()) != Some(&ZERO) {
            return Err(corrupt);
        }
        out.extend_from_slice(&rest[..=zero]);
        rest = &rest[zero + ZERO.len()..];
    }
    out.extend_from_slice(rest);
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn short_keys() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..6)
    }

    proptest! {
        #[test]
        fn round_trips(user in short_keys(), revision in 1i64..) {
            let encoded = key(&user, revision);
            let mut reused = vec![1];
            encode(&user, revision, &mut reused);
            prop_assert_eq!(&reused, &encoded);
            let (prefix, ended_at) = split(&encoded).expect("just encoded");
            let decoded = user_key(prefix).expect("just encoded");
            prop_assert_eq!(decoded.as_ref(), user.as_slice());
            prop_assert_eq!(ended_at, revision);
            prop_assert_eq!(ended(&encoded), Some(revision));
        }

        #[test]
        fn order_is_by_user_key_then_revision(
            a in short_keys(), b in short_keys(), x in 1i64.., y in 1i64..,
        ) {
            let encoded = key(&a, x).cmp(&key(&b, y));
            prop_assert_eq!(encoded, a.cmp(&b).then(x.cmp(&y)));
            prop_assert_eq!(prefix(&a).cmp(&prefix(&b)), a.cmp(&b));
        }
    }

    #[test]
    fn a_wrong_escape_is_corrupt() {
        assert!(user_key(&[b'a', 0x00, 0x02, 0x00, 0x01]).is_err());
        assert!(user_key(b"a").is_err());
        assert!(split(b"short").is_err());
    }
}
