//! Numbers that may be percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a share of a whole is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the next larger number.
    Up,
    /// To the next smaller number.
    Down,
}

/// The number that `value` stands for, a percentage being one of `total`; `None` if it is neither.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    let percent = match value {
        IntOrString::Int(number) => return Some(*number),
        IntOrString::String(text) => text.strip_suffix('%')?.parse::<i64>().ok()?,
    };
    let product = percent.checked_mul(total.into())?;
    let share = match round {
        Round::Up => product.checked_add(99)?.div_euclid(100),
        Round::Down => product.div_euclid(100),
    };
    i32::try_from(share).ok()
}

/// `maxSurge` and `maxUnavailable` of a rolling update over `desired` replicas: surge is rounded up, unavailable down, and
/// both cannot be zero, or nothing could ever move.
pub fn fenceposts(
    max_surge: Option<&IntOrString>,
    max_unavailable: Option<&IntOrString>,
    desired: i32,
) -> (i32, i32) {
    let surge = max_surge.and_then(|value| scaled(value, desired, Round::Up)).unwrap_or(0).max(0);
    let unavailable =
        max_unavailable.and_then(|value| scaled(value, desired, Round::Down)).unwrap_or(0).max(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> IntOrString {
        text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int)
    }

    #[test]
    fn percentages_round_as_told() {
        for (text, total, up, down) in [
            ("3", 10, Some(3), Some(3)),
            ("25%", 10, Some(3), Some(2)),
            ("25%", 4, Some(1), Some(1)),
            ("0%", 7, Some(0), Some(0)),
            ("100%", 7, Some(7), Some(7)),
            ("150%", 3, Some(5), Some(4)),
            ("many", 7, None, None),
            ("x%", 7, None, None),
        ] {
            assert_eq!(scaled(&value(text), total, Round::Up), up, "{text} of {total} up");
            assert_eq!(scaled(&value(text), total, Round::Down), down, "{text} of {total} down");
        }
    }

    #[test]
    fn fenceposts_always_leave_room_to_move() {
        for (surge, unavailable, desired, want) in [
            ("25%", "25%", 10, (3, 2)),
            ("25%", "25%", 3, (1, 0)),
            ("0", "25%", 1, (0, 1)),
            ("0", "0", 5, (0, 1)),
            ("1", "0", 5, (1, 0)),
        ] {
            assert_eq!(fenceposts(Some(&value(surge)), Some(&value(unavailable)), desired), want);
        }
    }
}
