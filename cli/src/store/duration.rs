//! Durations as Go writes them: `300ms`, `1h30m`, `1.5s`.

use std::time::Duration;

use anyhow::{Context, bail};

const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
];

/// A sum of numbers with units; a bare 0 needs none.
pub(super) fn parse(text: &str) -> anyhow::Result<Duration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        bail!("invalid duration {text:?}");
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: f64 =
            rest[..digits].parse().with_context(|| format!("invalid duration {text:?}"))?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..letters];
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            if unit.is_empty() {
                bail!("missing unit in duration {text:?}");
            }
            bail!("unknown unit {unit:?} in duration {text:?}");
        };
        seconds += number * factor;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).with_context(|| format!("invalid duration {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected_ms) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("2h", 7_200_000),
            ("1m0s", 60_000),
        ] {
            assert_eq!(parse(text).expect(text), Duration::from_millis(expected_ms), "{text}");
        }
        for bad in ["", "5", "5x", "s", "-1s", "1h5"] {
            parse(bad).expect_err(bad);
        }
    }
}
