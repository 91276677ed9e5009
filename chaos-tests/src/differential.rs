//! The same calls on a real etcd and on our store, compared field by field.
//!
//! A seed makes a sequence of calls ([`generate()`]), a [`Pair`] makes them on both servers one after the
//! other and reports the first [`Difference`], and [`shrink()`] drops calls from a failing sequence until
//! only those are left that it takes. Differences that stay are in `known.rs`, each with its reason.

pub mod call;
mod generate;
mod known;
mod pair;
mod server;
mod shrink;
mod side;
mod text;
mod watching;

use std::time::Duration;

pub use generate::{Profile, generate};
pub use known::{Known, unlike};
pub use pair::{Difference, Pair};
pub use server::Server;
pub use shrink::shrink;

/// Long enough for anything on a busy machine; only a failing run waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);
