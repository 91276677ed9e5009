//! How the members, nodes and pretended nodes of `up` are called.

/// Member `i`, counted from 1.
pub(crate) fn member(index: u16) -> String {
    format!("m{index}")
}

/// Node `i`, counted from 1.
pub(crate) fn node(index: u16) -> String {
    format!("node-{index}")
}

/// The agent that pretends to be many nodes; they are called `hollow-0`, `hollow-1`, …
pub(crate) const HOLLOW: &str = "hollow";
