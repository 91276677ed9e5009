//! Loads that measure a store beside a peer.
//!
//! A [`Plan`] names the systems and the [`workload`]s; [`run`](run::run) starts the systems on this
//! machine, gives each the same load in turn, and collects [`results`]. What is a number only
//! (percentiles, ratios, their spread) is `statistics`; what is shown is [`report`]: both are pure,
//! so that a report can be made again from its JSON.
//!
//! The generator must cost less than what it measures, or it measures itself: it is one thread, on
//! HTTP/2 frames directly (`client`), with requests that are encoded before the clock starts. Its own CPU
//! time stands in every report.

mod client;
pub mod floor;
pub mod report;
pub mod results;
pub mod run;
pub mod statistics;
pub mod system;
pub mod workload;

pub use run::{Event, Plan};
