//! pintle-nodeagent.
