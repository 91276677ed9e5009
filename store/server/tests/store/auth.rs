//! Users, roles and permissions over gRPC: etcd's answers and errors, and that nobody gets past
//! them.

mod certificates;
mod client;
mod jwt;
mod management;
mod permissions;
mod persistence;
mod tokens;
mod tool;

pub(crate) use client::{Client, quick};
