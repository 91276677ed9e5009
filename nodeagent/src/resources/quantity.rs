//! Quantities as integers, rounded up like upstream does.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The whole value. What is not a quantity counts nothing; the apiserver lets none of it pass.
pub fn value(quantity: &Quantity) -> i64 {
    pintle_machinery::Quantity::parse(&quantity.0).unwrap_or_default().value()
}

/// The value in thousandths.
pub fn milli_value(quantity: &Quantity) -> i64 {
    pintle_machinery::Quantity::parse(&quantity.0).unwrap_or_default().milli_value()
}
