//! Numbers for people: three significant digits, thousands set apart.

/// Three significant digits; whole numbers above a thousand.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1_000.0 {
        return thousands(value);
    }
    let decimals = match magnitude {
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 || m == 0.0 => 2,
        m if m >= 0.09995 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "−" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number and its unit.
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "" => number(value),
        "/s" | "×" => format!("{}{unit}", number(value)),
        _ => format!("{} {unit}", number(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_tell_enough() {
        let shown = [0.0, 0.01234, 0.5, 0.9999, 1.234, 3.0, 12.34, 123.4, 1_234.5, 1_234_567.8];
        let texts: Vec<String> = shown.into_iter().map(number).collect();
        let expected =
            ["0", "0.0123", "0.5", "1", "1.23", "3", "12.3", "123", "1,234", "1,234,568"];
        assert_eq!(texts, expected);
        assert_eq!(with_unit(1_500.0, "/s"), "1,500/s");
        assert_eq!(with_unit(1.5, "MiB"), "1.5 MiB");
    }
}
