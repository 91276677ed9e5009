//! Whole members on loopback ports, in one process: what a client of the store may rely on.

mod auth;
mod cluster;
mod conformance;
mod etcdctl;
mod leases;
mod locks;
mod maintenance;
mod membership;
mod profiles;
mod ranges;
mod snapshots;
mod support;
mod tls;
mod watches;
mod web;
