//! Traffic among members: connections to the others, the service that they call here, and how a
//! proposal's outcome crosses the wire.

pub(crate) mod append;
mod channel;
mod connections;
mod dial;
mod service;
mod traffic;
pub(crate) mod wire;

pub(crate) use append::routes as append_routes;
pub(crate) use channel::PeerChannel;
pub(crate) use connections::{Lane, MESSAGE_BYTES_MAX, Peers};
pub(crate) use service::PeerService;
pub(crate) use traffic::PeerTraffic;
#[cfg(test)]
pub(crate) use traffic::Traffic;
