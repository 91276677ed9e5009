//! pintle-scheduler.
