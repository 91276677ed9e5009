//! pintle-chaos.
