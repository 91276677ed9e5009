//! Node IPAM: every node gets a /24 of the cluster's range for its pods, in `spec.podCIDR`.
//!
//! What is taken is learnt from the nodes themselves, on every member, so that a new leader goes on where the last one
//! stopped. One worker allocates; a range is taken before it is written, and given back if the write fails.

use crate::{
    object::ObjectKey,
    runtime::{Change, Controller, Recorder, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

/// The length of a node's prefix.
const NODE_PREFIX: u8 = 24;

/// The ranges of the cluster and who has them. Pure.
#[derive(Debug)]
struct Ranges {
    cluster: Ipv4Net,
    by_index: BTreeMap<u32, String>,
    by_node: HashMap<String, u32>,
}

impl Ranges {
    fn new(cluster: Ipv4Net) -> Self {
        Self { cluster, by_index: BTreeMap::new(), by_node: HashMap::new() }
    }

    fn capacity(&self) -> u32 {
        match NODE_PREFIX.checked_sub(self.cluster.prefix_len()) {
            Some(bits) => 1_u32.checked_shl(bits.into()).unwrap_or(u32::MAX),
            None => 0,
        }
    }

    fn range(&self, index: u32) -> Option<Ipv4Net> {
        let base = u32::from(self.cluster.network());
        let address = base.checked_add(index.checked_mul(1 << (32 - NODE_PREFIX))?)?;
        Ipv4Net::new(Ipv4Addr::from(address), NODE_PREFIX).ok()
    }

    fn index(&self, range: Ipv4Net) -> Option<u32> {
        if range.prefix_len() != NODE_PREFIX || !self.cluster.contains(&range) {
            return None;
        }
        let distance = u32::from(range.network()) - u32::from(self.cluster.network());
        Some(distance >> (32 - NODE_PREFIX))
    }

    /// Notes that a node has a range; one that is not ours is none of our business.
    fn occupy(&mut self, node: &str, range: Ipv4Net) {
        let Some(index) = self.index(range) else { return };
        self.release(node);
        self.by_index.insert(index, node.to_owned());
        self.by_node.insert(node.to_owned(), index);
    }

    /// The lowest free range; the one that the node has, if it has one.
    fn allocate(&mut self, node: &str) -> Option<Ipv4Net> {
        if let Some(index) = self.by_node.get(node) {
            return self.range(*index);
        }
        let taken = self.by_index.keys().copied();
        let free = taken.zip(0..).find(|(index, n)| index != n).map(|(_, n)| n);
        let index = free.unwrap_or(self.by_index.len() as u32);
        let range = self.range(index).filter(|_| index < self.capacity())?;
        self.occupy(node, range);
        Some(range)
    }

    fn release(&mut self, node: &str) {
        if let Some(index) = self.by_node.remove(node)
            // Two nodes with one range is an error that somebody else has made: only the holder gives it back.
            && self.by_index.get(&index).is_some_and(|holder| holder == node)
        {
            self.by_index.remove(&index);
        }
    }
}

fn range_of(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    let first =
        spec.pod_cidr.as_deref().or_else(|| spec.pod_cidrs.as_ref()?.first().map(String::as_str));
    first.filter(|text| !text.is_empty())?.parse().ok()
}

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let ranges = Arc::new(Mutex::new(Ranges::new(setup.config().cluster_cidr)));
    let nodes = setup.informer::<Node>();
    let known = ranges.clone();
    nodes.on_change(move |change| {
        let name = change.object().name_any();
        match change {
            Change::Deleted(_) => known.lock().release(&name),
            Change::Added(node) | Change::Updated { new: node, .. } => {
                if let Some(range) = range_of(node) {
                    known.lock().occupy(&name, range);
                }
            }
        }
    });
    nodes.enqueue(&queue);
    let controller = NodeIpam {
        client: setup.client(),
        nodes: nodes.store(),
        ranges,
        recorder: setup.recorder("node-ipam-controller"),
    };
    setup.controller("node-ipam", queue, controller);
}

struct NodeIpam {
    client: Client,
    nodes: Arc<Store<Node>>,
    ranges: Arc<Mutex<Ranges>>,
    recorder: Recorder,
}

#[async_trait]
impl Controller for NodeIpam {
    fn workers(&self) -> usize {
        1
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.nodes.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(node) = self.nodes.get(key) else { return Ok(Verdict::Done) };
        if range_of(&node).is_some() {
            return Ok(Verdict::Done);
        }
        let Some(range) = self.ranges.lock().allocate(&key.name) else {
            self.recorder.warning(
                &*node,
                "CIDRNotAvailable",
                "No pod CIDR range is left for the node",
            );
            return Err(SyncError::NotYet("no pod range is left".to_owned()));
        };
        let patch = Patch::Merge(json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
        }));
        let api = Api::<Node>::all(self.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(Verdict::Done),
            Err(error) => {
                // Only if it certainly did not happen; otherwise the node keeps its range, and the retry writes the same.
                if matches!(error, kube::Error::Api(_)) {
                    self.ranges.lock().release(&key.name);
                }
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn lowest_free_range_is_given_and_kept() {
        let mut ranges = Ranges::new(net("10.244.0.0/16"));
        assert_eq!(ranges.allocate("a"), Some(net("10.244.0.0/24")));
        assert_eq!(ranges.allocate("b"), Some(net("10.244.1.0/24")));
        assert_eq!(ranges.allocate("a"), Some(net("10.244.0.0/24")));
        ranges.release("a");
        assert_eq!(ranges.allocate("c"), Some(net("10.244.0.0/24")));
        assert_eq!(ranges.allocate("d"), Some(net("10.244.2.0/24")));
    }

    #[test]
    fn ranges_that_nodes_bring_are_not_given_again() {
        let mut ranges = Ranges::new(net("10.244.0.0/16"));
        ranges.occupy("a", net("10.244.0.0/24"));
        ranges.occupy("b", net("10.244.1.0/24"));
        ranges.occupy("stranger", net("192.168.0.0/24"));
        assert_eq!(ranges.allocate("c"), Some(net("10.244.2.0/24")));
    }

    #[test]
    fn nothing_is_given_beyond_the_cluster_range() {
        let mut ranges = Ranges::new(net("10.0.0.0/23"));
        assert!(ranges.allocate("a").is_some() && ranges.allocate("b").is_some());
        assert_eq!(ranges.allocate("c"), None);
        ranges.release("b");
        assert_eq!(ranges.allocate("c"), Some(net("10.0.1.0/24")));
        assert_eq!(Ranges::new(net("10.0.0.0/25")).allocate("a"), None);
    }
}
