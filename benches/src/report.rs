//! Reports from results: a table for the terminal, a page with plots. Pure: the same results give the
//! same report.

mod html;
mod number;
mod plot;
mod text;

pub use html::html;
pub use number::{number, with_unit};
pub use text::{text, workload_text};
