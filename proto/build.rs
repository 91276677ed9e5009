//! Compiles the `.proto` texts with protox, so that no `protoc` is needed.

use std::error::Error;

const SOURCES: &[&str] = &[
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/rpc.proto",
    "etcd/lock.proto",
    "etcd/election.proto",
    "raft/raft.proto",
    "cri/runtime.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let descriptors = protox::compile(SOURCES, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
