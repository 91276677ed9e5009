//! `census`: the first key of a bucket to the number of keys in it, big-endian.

use crate::Fault;

pub(crate) fn encode(count: i64) -> [u8; 8] {
    count.to_be_bytes()
}

pub(crate) fn decode(value: &[u8]) -> Result<i64, Fault> {
    let bytes = value.try_into().map_err(|_| Fault::Corrupt { what: "census" })?;
    Ok(i64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(count: i64) {
            prop_assert_eq!(decode(&encode(count)).expect("just encoded"), count);
        }
    }

    #[test]
    fn a_short_count_is_corrupt() {
        assert!(decode(&[0; 7]).is_err());
    }
}
