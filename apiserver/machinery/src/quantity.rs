//! `resource.Quantity`: exact decimal numbers with a suffix.
/// A parsed quantity.
#[derive(Clone, Debug)]
pub struct Quantity {
    _p: (),
}
