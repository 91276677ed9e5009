//! Whole members on loopback ports, in one process: what a client of the store may rely on.

mod cluster;
mod conformance;
mod etcdctl;
mod leases;
mod membership;
mod support;
mod watches;
