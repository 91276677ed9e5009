//! `lease`: id to granted and remaining seconds. `lease_keys`: id and key to nothing.

use crate::Fault;

const ID_BYTES: usize = 8;

/// The replicated part of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    pub(crate) granted_ttl: i64,
    /// 0: no checkpoint since the last renewal.
    pub(crate) remaining_ttl: i64,
}

/// Ids in their numeric order, negative ones first.
pub(crate) fn key(id: i64) -> [u8; ID_BYTES] {
    ((id as u64) ^ (1 << 63)).to_be_bytes()
}

pub(crate) fn id(key: &[u8]) -> Result<i64, Fault> {
    let bytes = key.first_chunk::<ID_BYTES>().ok_or(Fault::Corrupt { what: "lease key" })?;
    Ok((u64::from_be_bytes(*bytes) ^ (1 << 63)) as i64)
}

pub(crate) fn encode(record: LeaseRecord) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&record.granted_ttl.to_be_bytes());
    out[8..].copy_from_slice(&record.remaining_ttl.to_be_bytes());
    out
}

pub(crate) fn decode(value: &[u8]) -> Result<LeaseRecord, Fault> {
    let (Some(granted), Some(remaining), 16) =
        (value.first_chunk::<8>(), value.last_chunk::<8>(), value.len())
    else {
        return Err(Fault::Corrupt { what: "lease" });
    };
    Ok(LeaseRecord {
        granted_ttl: i64::from_be_bytes(*granted),
        remaining_ttl: i64::from_be_bytes(*remaining),
    })
}

/// The key in `lease_keys` that attaches `user_key`.
pub(crate) fn attachment(id: i64, user_key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ID_BYTES + user_key.len());
    out.extend_from_slice(&key(id));
    out.extend_from_slice(user_key);
    out
}

/// The user key of an [`attachment`].
pub(crate) fn attached(key: &[u8]) -> Result<&[u8], Fault> {
    key.get(ID_BYTES..).ok_or(Fault::Corrupt { what: "lease attachment" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(lease_id: i64, granted_ttl: i64, remaining_ttl: i64, user_key: Vec<u8>) {
            let record = LeaseRecord { granted_ttl, remaining_ttl };
            prop_assert_eq!(decode(&encode(record)).expect("just encoded"), record);
            prop_assert_eq!(id(&key(lease_id)).expect("just encoded"), lease_id);
            let attachment = attachment(lease_id, &user_key);
            prop_assert_eq!(id(&attachment).expect("just encoded"), lease_id);
            prop_assert_eq!(attached(&attachment).expect("just encoded"), user_key.as_slice());
        }

        #[test]
        fn order_is_numeric(a: i64, b: i64) {
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }
    }

    #[test]
    fn a_short_lease_is_corrupt() {
        assert!(decode(&[0; 15]).is_err());
        assert!(id(&[0; 7]).is_err());
        assert!(attached(&[0; 7]).is_err());
    }
}
