//! One version of a key's value, in `current` and `history`.
//!
//! Four integers, then the value as it is. The creating revision is stored as its distance to the
//! modifying one, which is short for keys that are new or hot.

use bytes::Bytes;
use pintle_store_api::mvccpb::KeyValue;

use super::varint;
use crate::Fault;

/// A version that owns (shares) its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) value: Bytes,
}

/// A version whose value still lies in the database's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordRef<'a> {
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) value: &'a [u8],
}

impl Record {
    pub(crate) fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            create: self.create,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
            value: &self.value,
        }
    }

    pub(crate) fn into_kv(self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.create,
            mod_revision: self.modified,
            version: self.version,
            value: self.value,
            lease: self.lease,
        }
    }
}

impl<'a> RecordRef<'a> {
    /// Writes over `out`, which callers reuse.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(self.value.len() + 24);
        varint::put(self.modified as u64, out);
        varint::put((self.modified - self.create) as u64, out);
        varint::put(self.version as u64, out);
        varint::put(self.lease as u64, out);
        out.extend_from_slice(self.value);
    }

    pub(crate) fn decode(mut input: &'a [u8]) -> Result<Self, Fault> {
        let mut next = || varint::take(&mut input).map(|value| value as i64);
        let fields = (next(), next(), next(), next());
        let (Some(modified), Some(age), Some(version), Some(lease)) = fields else {
            return Err(Fault::Corrupt { what: "record" });
        };
        let create = modified.wrapping_sub(age);
        Ok(Self { create, modified, version, lease, value: input })
    }

    pub(crate) fn to_record(self) -> Record {
        Record {
            create: self.create,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
            value: Bytes::copy_from_slice(self.value),
        }
    }

    /// The message, without the value where it is not wanted.
    pub(crate) fn to_kv(self, key: &[u8], with_value: bool) -> KeyValue {
        let value = if with_value { Bytes::copy_from_slice(self.value) } else { Bytes::new() };
        KeyValue {
            key: Bytes::copy_from_slice(key),
            create_revision: self.create,
            mod_revision: self.modified,
            version: self.version,
            value,
            lease: self.lease,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(
            create in 1i64..i64::MAX / 2, age in 0i64..i64::MAX / 2,
            version in 1i64.., lease: i64, value: Vec<u8>,
        ) {
            let record = RecordRef { create, modified: create + age, version, lease, value: &value };
            let mut encoded = Vec::new();
            record.encode(&mut encoded);
            prop_assert_eq!(RecordRef::decode(&encoded).expect("just encoded"), record);
        }
    }

    #[test]
    fn a_cut_record_is_corrupt() {
        assert!(matches!(RecordRef::decode(&[2, 0, 1]), Err(Fault::Corrupt { what: "record" })));
    }
}
