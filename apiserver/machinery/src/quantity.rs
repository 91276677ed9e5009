//! `resource.Quantity`: exact decimal numbers with a suffix.
//!
//! A value is kept in billionths in an `i128`: upstream rounds anything finer than nano up and caps
//! at 2⁶³−1, so every legal quantity fits exactly. The canonical text has the largest suffix that
//! needs no fraction, in the format it was written in.

use std::cmp::Ordering;
use std::fmt::{self, Display, Write as _};
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
const NANO_DIGITS: usize = 9;
/// Upstream's `maxAllowed`, in billionths.
const NANOS_MAX: i128 = (i64::MAX as i128) * NANO;
/// More integer digits than this are above the cap anyway.
const INTEGER_DIGITS_MAX: usize = 20;
/// Fraction digits that are multiplied exactly by a binary unit; twice the digits of a billionth, so
/// that dividing by [`NANO`] gives billionths again. Those beyond only say "not exact".
const FRACTION_DIGITS_MAX: usize = 2 * NANO_DIGITS;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// A text that is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseError;

/// A parsed quantity. Comparisons look at the value only: `1000m` equals `1`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Default for Quantity {
    fn default() -> Self {
        Self::new(0, Format::DecimalSi)
    }
}

impl Quantity {
    /// A whole number.
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths.
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * 1_000_000, format }
    }

    /// Parses any of the three formats.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (integer.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseError);
        }
        let (scale, format) = parse_suffix(suffix)?;
        let magnitude = scaled_nanos(integer, fraction, scale);
        let format = match format {
            Format::BinarySi if magnitude > 0 && magnitude < NANO => Format::DecimalSi,
            format => format,
        };
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// Parses a JSON string or number.
    pub fn from_value(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::String(text) => Self::parse(text.trim()),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(ParseError),
        }
    }

    /// The whole number, rounded up (away from zero for fractions), as upstream's `Value()`.
    pub fn value(&self) -> i64 {
        clamp(div_away(self.nanos, NANO))
    }

    /// In thousandths, rounded up, as upstream's `MilliValue()`.
    pub fn milli_value(&self) -> i64 {
        clamp(div_away(self.nanos, 1_000_000))
    }

    /// As a float, for ratios.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The canonical form of a text, e.g. `1000m` → `1`.
    pub fn canonical(text: &str) -> Result<String, ParseError> {
        Ok(Self::parse(text)?.to_string())
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn div_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

#[derive(Clone, Copy)]
enum Scale {
    /// Powers of 1024.
    Binary(u32),
    /// Powers of 10.
    Decimal(i32),
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), ParseError> {
    let scale = match suffix {
        "" => Scale::Decimal(0),
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        "Ki" => Scale::Binary(1),
        "Mi" => Scale::Binary(2),
        "Gi" => Scale::Binary(3),
        "Ti" => Scale::Binary(4),
        "Pi" => Scale::Binary(5),
        "Ei" => Scale::Binary(6),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(ParseError)?;
            let exponent: i32 = digits.parse().map_err(|_| ParseError)?;
            return Ok((Scale::Decimal(exponent), Format::DecimalExponent));
        }
    };
    let format =
        if matches!(scale, Scale::Binary(_)) { Format::BinarySi } else { Format::DecimalSi };
    Ok((scale, format))
}

/// `integer.fraction * scale` in billionths, rounded up, capped. All digits are ASCII digits.
fn scaled_nanos(integer: &str, fraction: &str, scale: Scale) -> i128 {
    match scale {
        Scale::Binary(power) => binary_nanos(integer, fraction, 1_i128 << (10 * power)),
        Scale::Decimal(exponent) => {
            // Move the point to where one unit is a billionth.
            let exponent = exponent.clamp(-60, 60) + NANO_DIGITS as i32;
            let (integer, fraction) = shift_point(integer, fraction, exponent);
            let integer = integer.trim_start_matches('0');
            if integer.len() > INTEGER_DIGITS_MAX + NANO_DIGITS {
                return NANOS_MAX;
            }
            let whole: i128 =
                if integer.is_empty() { 0 } else { integer.parse().unwrap_or(NANOS_MAX) };
            let inexact = fraction.bytes().any(|b| b != b'0');
            (whole + i128::from(inexact)).min(NANOS_MAX)
        }
    }
}

/// Integer and fraction are multiplied apart, so that neither product can overflow.
fn binary_nanos(integer: &str, fraction: &str, unit: i128) -> i128 {
    let integer = integer.trim_start_matches('0');
    if integer.len() > INTEGER_DIGITS_MAX {
        return NANOS_MAX;
    }
    let units = format!("0{integer}").parse::<i128>().unwrap_or(NANOS_MAX) * unit;
    if units > i128::from(i64::MAX) {
        return NANOS_MAX;
    }
    let fraction = fraction.trim_end_matches('0');
    let kept = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let padded = format!("{kept:0<FRACTION_DIGITS_MAX$}");
    let product = padded.parse::<i128>().unwrap_or(0) * unit;
    let (nanos, rest) = (product / NANO, product % NANO);
    let inexact = rest != 0 || kept.len() < fraction.len();
    (units * NANO + nanos + i128::from(inexact)).min(NANOS_MAX)
}

/// Moves the decimal point `by` places to the right (left when negative).
fn shift_point(integer: &str, fraction: &str, by: i32) -> (String, String) {
    let places = by.unsigned_abs() as usize;
    if by >= 0 {
        let taken = fraction.len().min(places);
        let zeros = "0".repeat(places - taken);
        (format!("{integer}{}{zeros}", &fraction[..taken]), fraction[taken..].to_owned())
    } else {
        let taken = integer.len().min(places);
        let (kept, moved) = integer.split_at(integer.len() - taken);
        (kept.to_owned(), format!("{}{moved}{fraction}", "0".repeat(places - taken)))
    }
}

/// The canonical form.
impl Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_char('0');
        }
        match self.format {
            Format::BinarySi if self.nanos.abs() >= 1024 * NANO => self.fmt_binary(f),
            Format::BinarySi | Format::DecimalSi => {
                let (mantissa, exponent) = self.decimal();
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(f, "{mantissa}{}", suffix[((exponent + 9) / 3) as usize])
            }
            Format::DecimalExponent => match self.decimal() {
                (mantissa, 0) => write!(f, "{mantissa}"),
                (mantissa, exponent) => write!(f, "{mantissa}e{exponent}"),
            },
        }
    }
}

impl Quantity {
    fn fmt_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mantissa = div_away(self.nanos, NANO);
        let mut power = 0;
        while power < 6 && mantissa % 1024 == 0 {
            mantissa /= 1024;
            power += 1;
        }
        write!(f, "{mantissa}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power])
    }

    /// Mantissa and exponent, a multiple of three between -9 and 18, as large as possible.
    fn decimal(&self) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while exponent < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        (mantissa, exponent)
    }
}

impl FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

fn combine(a: Quantity, b: Quantity, nanos: i128) -> Quantity {
    // A zero takes the format of what is added to it, so that sums keep their units.
    let format = if a.is_zero() { b.format } else { a.format };
    Quantity { nanos, format }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        combine(self, other, self.nanos.saturating_add(other.nanos))
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        combine(self, other, self.nanos.saturating_sub(other.nanos))
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        let cases = [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("100m", "100m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("1100", "1100"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("100e-3", "100e-3"),
            ("1E", "1E"),
            ("0.1Ki", "102400m"),
            ("0.5Mi", "512Ki"),
            ("1.1Mi", "1153434"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("+5", "5"),
            ("-5Mi", "-5Mi"),
            (".5", "500m"),
            ("5.", "5"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("64Mi", "64Mi"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("0.0001Ki", "102400u"),
        ];
        for (text, canonical) in cases {
            let parsed = Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", "-", "m", "1.1.1", "1x", "1 Mi", "1MiB", "1e", "1ee3", "1K", "0x10", "--1", "1mi"]
        {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        let quantity = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(quantity("100m").value(), 1);
        assert_eq!(quantity("-100m").value(), -1);
        assert_eq!(quantity("1500u").milli_value(), 2);
        assert_eq!(quantity("2").milli_value(), 2000);
        assert_eq!(quantity("1Gi").value(), 1 << 30);
    }

    #[test]
    fn sums_keep_the_format_of_the_first_nonzero_term() {
        let quantity = |text: &str| Quantity::parse(text).unwrap();
        let sum: Quantity = ["64Mi", "64Mi"].map(quantity).into_iter().sum();
        assert_eq!(sum.to_string(), "128Mi");
        assert_eq!((quantity("1") - quantity("250m")).to_string(), "750m");
    }

    proptest! {
        #[test]
        fn canonical_form_is_stable_and_keeps_the_value(
            number in "[+-]?[0-9]{1,18}(\\.[0-9]{0,11})?",
            suffix in prop::sample::select(vec![
                "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
                "e3", "E-2", "e0",
            ]),
        ) {
            let quantity = Quantity::parse(&format!("{number}{suffix}")).unwrap();
            let text = quantity.to_string();
            let again = Quantity::parse(&text).unwrap();
            prop_assert_eq!(again.to_string(), text.clone());
            let written_in_full = quantity.format() != Format::BinarySi
                || quantity.nanos.abs() < 1024 * NANO
                || quantity.nanos % NANO == 0;
            if written_in_full {
                prop_assert_eq!(again, quantity);
            }
        }

        #[test]
        fn order_follows_the_numbers(a in any::<i32>(), b in any::<i32>()) {
            let (x, y) = (format!("{a}m"), format!("{b}m"));
            prop_assert_eq!(Quantity::parse(&x).unwrap().cmp(&Quantity::parse(&y).unwrap()), a.cmp(&b));
        }
    }
}
