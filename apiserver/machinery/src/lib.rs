//! pintle-machinery.
