//! Quantities as integers, rounded up like upstream does.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The whole value.
pub fn value(quantity: &Quantity) -> i64 {
    scaled(quantity, 1.0)
}

/// The value in thousandths.
pub fn milli_value(quantity: &Quantity) -> i64 {
    scaled(quantity, 1000.0)
}

fn scaled(quantity: &Quantity, by: f64) -> i64 {
    let text = quantity.0.trim();
    let at = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        _ => text.parse::<f64>().map_or(0.0, |_| 1.0),
    };
    let number: f64 = number.parse().or_else(|_| text.parse()).unwrap_or(0.0);
    (number * factor * by).ceil() as i64
}
