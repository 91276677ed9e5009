//! Dependencies between the crates point one way, and TLS comes from one place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What each crate may use of the workspace, directly.
const MAY_USE: &[(&str, &[&str])] = &[
    ("pintle-proto", &[]),
    ("pintle-store-api", &["pintle-proto"]),
    ("pintle-mvcc", &["pintle-proto", "pintle-store-api"]),
    ("pintle-store", &["pintle-proto", "pintle-store-api", "pintle-mvcc"]),
    ("pintle-machinery", &[]),
    ("pintle-apiserver-storage", &["pintle-machinery", "pintle-store-api"]),
    ("pintle-apiserver", &["pintle-machinery", "pintle-store-api", "pintle-apiserver-storage"]),
    // Clients of the apiserver: they know the API's types and rules, and nothing of the store.
    ("pintle-election", &[]),
    ("pintle-scheduler", &["pintle-machinery", "pintle-election"]),
    ("pintle-controllers", &["pintle-machinery", "pintle-election"]),
    ("pintle-nodeagent", &["pintle-proto", "pintle-machinery"]),
    ("pintle-demo", &[]),
    // For tests alone: nobody else may use it.
    ("pintle-testing", &[]),
];
/// These stand on top and may use everything.
const TOP: &[&str] = &["pintle", "pintle-benches", "pintle-chaos"];
/// TLS is rustls on ring: one implementation to patch, and no C beside RocksDB and jemalloc.
const BANNED: &[&str] = &["openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Each crate of the workspace with the crates of the workspace that it depends on; dependencies of
/// tests alone are left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().expect("dependencies").iter();
            let used = used
                .filter(|one| one["kind"] != "dev" && one["path"].is_string())
                .map(name)
                .collect();
            (name(package), used)
        })
        .collect()
}

#[test]
fn crates_use_only_what_stands_below_them() {
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let dependencies = dependencies();
    for (name, used) in &dependencies {
        if TOP.contains(&name.as_str()) {
            continue;
        }
        let allowed = rules.get(name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{name} has no place in the order"));
        for other in used {
            assert!(allowed.contains(&other.as_str()), "{name} must not use {other}");
        }
    }
    for name in rules.keys() {
        assert!(dependencies.contains_key(*name), "{name} is no crate of this workspace");
    }
}

#[test]
fn the_rules_themselves_have_no_circle() {
    let mut below = BTreeSet::new();
    for (name, allowed) in MAY_USE {
        for other in *allowed {
            assert!(below.contains(other), "{name} may use {other}, which stands above it");
        }
        below.insert(*name);
    }
}

#[test]
fn tls_comes_from_rustls_on_ring() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("a lock file");
    for name in BANNED {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in the tree");
    }
}
