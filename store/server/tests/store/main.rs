//! Whole members on loopback ports, in one process: what a client of the store may rely on.

mod cluster;
mod conformance;
mod etcdctl;
mod leases;
mod maintenance;
mod membership;
mod snapshots;
mod support;
mod tls;
mod watches;
