//! `IntOrString`: a number, or a percentage of a total.

use serde_json::Value;

/// The value scaled to `total` when it is a percentage; `None` when it is neither an integer nor a
/// percentage, as upstream's `GetScaledValueFromIntOrPercent`.
pub fn scaled(value: &Value, total: i64, round_up: bool) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => Some(percent_of(parse_percent(text)?, total, round_up)),
        _ => None,
    }
}

/// `25%` → 25.
pub fn parse_percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// A percentage of `total`, rounded up or down.
pub fn percent_of(percent: i64, total: i64, round_up: bool) -> i64 {
    let product = percent * total;
    if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let cases = [
            (json!("25%"), 3, true, Some(1)),
            (json!("25%"), 3, false, Some(0)),
            (json!("100%"), 7, false, Some(7)),
            (json!("0%"), 7, true, Some(0)),
            (json!(2), 7, true, Some(2)),
            (json!("2"), 7, true, None),
            (json!("%"), 7, true, None),
            (json!("-5%"), 7, true, None),
            (json!(null), 7, true, None),
        ];
        for (value, total, up, expected) in cases {
            assert_eq!(scaled(&value, total, up), expected, "{value} of {total}");
        }
    }
}
