//! Leader election on Lease objects: many members stand by, one of them acts.
//!
//! The decisions are a pure function of what was observed and when ([`decide()`]); [`run_while_leading`] is the thin
//! loop that reads and writes the Lease in `kube-system` and starts and stops the caller's work. The protocol is
//! client-go's, on a shorter clock: a crash of the holder costs [`LEASE_DURATION`] and one [`POLL_PERIOD`], a clean
//! stop clears `holderIdentity` and costs one poll.
//!
//! Clocks of different members are never compared. A candidate measures, on its own monotonic clock, how long a
//! record has stayed unchanged; a holder gives up [`RENEW_DEADLINE`] after it *sent* the last renewal that succeeded,
//! so it has stopped before any candidate may take over, whatever the wall clocks say.

mod decide;
mod elector;

pub use decide::{Decision, Observation, Record, decide};
pub use elector::{Config, run_while_leading};

use std::time::Duration;

/// How long a record must stay unchanged before another candidate may take the lease. A whole number of seconds,
/// at least one: it is written to `leaseDurationSeconds`.
pub const LEASE_DURATION: Duration = Duration::from_secs(2);
/// A holder stops acting this long after the sending of its last successful renewal.
/// The difference to [`LEASE_DURATION`] is the time that the work has to wind down.
pub const RENEW_DEADLINE: Duration = Duration::from_millis(1500);
/// How often the holder renews.
pub const RENEW_PERIOD: Duration = Duration::from_millis(500);
/// How often a candidate looks.
pub const POLL_PERIOD: Duration = Duration::from_millis(250);
/// The most that one request may take; two fit into [`RENEW_DEADLINE`].
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(700);
