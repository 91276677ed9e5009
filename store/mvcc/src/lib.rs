//! pintle-mvcc.
