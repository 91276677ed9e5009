//! The node agent: the kubelet's parts around a container runtime, the service proxy and the cluster
//! DNS of one node.
//!
//! A pod that the apiserver binds to the node gets a worker ([`pod::worker`]), a task that owns the
//! pod's state and nothing else; it decides with a pure function ([`pod::actions`]) and acts through the
//! runtime seam ([`runtime::Runtime`]). Everything the node writes lies below [`config::Paths`].
//!
//! What the agent owns outlives it: containers, their shims and containerd go on without an agent, and a
//! new one adopts them by their labels. Only [`stop_containerd`] ends them.

pub mod agent;
pub mod balancer;
pub mod cgroup;
pub mod cni;
pub mod config;
pub mod containerd;
pub mod context;
pub mod dns;
pub mod events;
pub mod eviction;
pub mod image_manager;
pub mod images;
pub mod log;
pub mod mounts;
pub mod node;
pub mod pod;
pub mod probe;
pub mod proxy;
pub mod resources;
pub mod runtime;
pub mod server;
pub mod stats;
pub mod stream;
pub mod volume;

pub use agent::{Error, run};
pub use config::{Config, RuntimeKind, TlsFiles};
pub use containerd::stop_containerd;
