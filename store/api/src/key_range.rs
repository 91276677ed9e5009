//! Half-open ranges of keys, with etcd's two spellings of "unbounded".

use bytes::Bytes;

/// The keys `start <= key < end`; no `end` means "to the last key".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: Option<Bytes>,
}

impl KeyRange {
    /// Exactly one key.
    pub fn point(key: Bytes) -> Self {
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(&key);
        end.push(0);
        Self { start: key, end: Some(end.into()) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: Bytes) -> Self {
        let end = prefix_end(&prefix);
        Self { start: prefix, end }
    }

    /// Every key from `start` on and before `end`.
    pub fn between(start: Bytes, end: Option<Bytes>) -> Self {
        Self { start, end }
    }

    /// As requests spell it: an empty `range_end` is a point, `\0` means "from `key` on".
    pub fn from_request(key: Bytes, range_end: Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::point(key),
            [0] => Self { start: if key.as_ref() == [0] { Bytes::new() } else { key }, end: None },
            _ => Self { start: key, end: Some(range_end) },
        }
    }

    /// The first key that may be in the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// The first key after the range, if it is bounded.
    pub fn end(&self) -> Option<&Bytes> {
        self.end.as_ref()
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    /// Whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| self.start >= *end)
    }
}

/// The first key after all keys with `prefix`; `None` when there is none (all bytes 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_holds_only_its_key() {
        let range = KeyRange::point(Bytes::from_static(b"a"));
        assert!(range.contains(b"a"));
        assert!(!range.contains(b"a\0"));
        assert!(!range.contains(b"b"));
    }

    #[test]
    fn prefix_ends_after_trailing_ff() {
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert!(KeyRange::prefix(Bytes::from_static(b"\xff")).contains(b"\xff\xff\x01"));
    }

    #[test]
    fn zero_range_end_is_unbounded() {
        let all = KeyRange::from_request(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        assert!(all.contains(b""));
        assert!(all.contains(b"\xff\xff"));
        let from = KeyRange::from_request(Bytes::from_static(b"m"), Bytes::from_static(b"\0"));
        assert!(!from.contains(b"l"));
        assert!(from.contains(b"z"));
    }
}
