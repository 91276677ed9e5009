//! Garbage collector: deletes objects whose owners are gone, in the order that owners and dependents ask for.
//!
//! [`graph`] holds the metadata of every object there is and knows who owns whom. Nothing is deleted on the graph's word
//! that an owner is missing: the apiserver is asked for that owner first, by kind and name, and the UID compared; a kind
//! that discovery does not know is no proof of absence. Three ways to go:
//!
//! * *background*: the owner is gone; its dependents follow.
//! * *foreground*: the owner stays, with the finalizer `foregroundDeletion`, until the dependents that block it are gone.
//! * *orphan*: the owner stays, with the finalizer `orphan`, until no dependent refers to it any more.
//!
//! A dependent that has a live owner too only loses the dead reference. The graph is filled anew in each term, from a
//! metadata-only watch of every resource that discovery shows; discovery is asked again every half minute and whenever a
//! CustomResourceDefinition changes.

mod decide;
mod graph;
mod monitors;
mod sync;

pub(super) use sync::register;
