//! What crosses a process boundary: etcd's v3 API, the traffic between store members, and
//! the container runtime interface. Generated at build from our own `.proto` texts; no behaviour.
//!
//! `bytes` fields are [`bytes::Bytes`], so that a value decoded from the network is shared, not copied.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// etcd's packages, under their own names.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// Keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Users, roles and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// The lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// The election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// A `FileDescriptorSet` of etcd's packages: what a program that learns of them at run time reads.
pub const ETCD_DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("etcd");
/// Our own packages, nested as their names are, because generated code refers to others by depth.
pub mod pintle {
    pub mod raft {
        pub mod v1 {
            tonic::include_proto!("pintle.raft.v1");
        }
    }
}
/// Replicated commands and peer traffic of the store.
pub use pintle::raft::v1 as raft;
/// The container runtime interface, v1.
pub mod cri {
    tonic::include_proto!("runtime.v1");
}
