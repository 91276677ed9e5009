//! Compiles the `.proto` texts with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::Path;

use prost::Message;

/// What etcd's clients call: described at run time too, for the JSON gateway and for reflection.
const ETCD_SOURCES: &[&str] = &[
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/rpc.proto",
    "etcd/lock.proto",
    "etcd/election.proto",
];
const OTHER_SOURCES: &[&str] = &["raft/raft.proto", "cri/runtime.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let sources = [ETCD_SOURCES, OTHER_SOURCES].concat();
    for source in &sources {
        println!("cargo::rerun-if-changed={source}");
    }
    let etcd = protox::compile(ETCD_SOURCES, ["."])?.encode_to_vec();
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("etcd.bin"), etcd)?;
    let descriptors = protox::compile(sources, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
