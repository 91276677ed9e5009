//! Alarms, in `meta` beside the head: the kind and the member that it concerns, to nothing.

use crate::Fault;

/// What the keys of all alarms begin with.
pub(crate) const PREFIX: &[u8] = b"alarm/";
const KEY_BYTES: usize = 6 + 4 + 8;

pub(crate) fn key(kind: i32, member: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(KEY_BYTES);
    out.extend_from_slice(PREFIX);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&member.to_be_bytes());
    out
}

/// Kind and member.
pub(crate) fn split(key: &[u8]) -> Result<(i32, u64), Fault> {
    let fields = key.strip_prefix(PREFIX).and_then(|rest| rest.split_first_chunk::<4>());
    let Some((kind, member)) = fields else { return Err(Fault::Corrupt { what: "alarm" }) };
    let member = member.try_into().map_err(|_| Fault::Corrupt { what: "alarm" })?;
    Ok((i32::from_be_bytes(*kind), u64::from_be_bytes(member)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(kind in 0i32.., member: u64) {
            prop_assert_eq!(split(&key(kind, member)).expect("just encoded"), (kind, member));
        }
    }

    #[test]
    fn a_short_alarm_is_corrupt() {
        assert!(split(b"alarm/").is_err());
        assert!(split(&key(1, 2)[..12]).is_err());
        assert!(split(b"head").is_err());
    }
}
