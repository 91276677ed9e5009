//! The Node object: registration, status, lease.

pub mod info;
pub mod lease;
pub mod registration;
pub mod status;
