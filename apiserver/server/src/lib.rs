//! The apiserver: HTTP, discovery, OpenAPI, authentication, authorization, admission and one
//! generic registry over a table of resources, with a [`registry::strategy::Strategy`] where a kind
//! differs.
//!
//! A request goes through, from outside in: panic recovery, request info, metrics and log, limits and
//! deadline, authentication, impersonation, authorization, then a handler: discovery, health, a
//! [`connect::Endpoint`], or the registry, which decodes, admits, validates and stores.

pub mod admission;
pub mod authn;
pub mod authz;
mod bootstrap;
mod config;
pub mod connect;
mod crd;
mod documents;
pub mod error;
mod health;
pub mod http;
mod node_proxy;
mod openid;
pub mod registry;
pub mod request_info;
mod server;
mod token;
pub mod version;

pub use config::{Config, TlsFiles};
pub use server::{ServeError, serve};
