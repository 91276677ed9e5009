//! A member on a simulated machine: the way in for tests that decide over its network, its disk
//! and its time. Only with the feature `simulation`, which no release binary has.

#[cfg(feature = "simulation")]
mod broken;
#[cfg(feature = "simulation")]
mod member;

#[cfg(feature = "simulation")]
pub use self::broken::{Broken, break_deliberately};
#[cfg(feature = "simulation")]
pub use self::member::{
    BoxError, Disk, Network, PeerRequest, PeerResponse, Pending, Simulated, SimulatedMember, enter,
};

#[cfg(feature = "simulation")]
pub(crate) use self::{broken::is_broken, member::is_simulated};

/// Whether this process is a simulation.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn is_simulated() -> bool {
    false
}
