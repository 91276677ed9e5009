//! pintle-benches.
