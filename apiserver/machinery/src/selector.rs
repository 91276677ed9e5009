//! Label and field selectors: parsed once, matched many times without allocating.

mod field;
mod label;
mod lexer;
mod parser;

pub use field::FieldSelector;
pub use label::{LabelSelector, Operator, Requirement};
