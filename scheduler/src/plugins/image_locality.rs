//! ImageLocality: likes nodes that already have the pod's images, the more the larger and the wider spread these are.

use crate::cluster::{Cluster, Slot};
use crate::framework::{MAX_SCORE, Score, ScorePlugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Images that are smaller than this together do not count.
const MIN_BYTES: i64 = 23 * 1024 * 1024;
/// More than this for each container counts no further.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

pub(super) struct ImageLocality;

struct Prepared<'a> {
    /// The images, each with the share of nodes that have it.
    images: Vec<(&'a str, f64)>,
    max_bytes: i64,
}

impl ScorePlugin for ImageLocality {
    fn pre_score<'a>(
        &self,
        cluster: &'a Cluster,
        pod: &'a PodInfo,
        _: &[Slot],
    ) -> Option<Box<dyn Score + 'a>> {
        let total = cluster.nodes().len().max(1) as f64;
        let present = pod.images.iter().filter(|image| cluster.nodes_with_image(image) > 0);
        let images: Vec<_> = present
            .map(|image| (image.as_str(), cluster.nodes_with_image(image) as f64 / total))
            .collect();
        let max_bytes = MAX_BYTES_PER_CONTAINER * pod.images.len() as i64;
        (!images.is_empty()).then(|| Box::new(Prepared { images, max_bytes }) as Box<dyn Score>)
    }
}

impl Score for Prepared<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let present = self.images.iter().filter_map(|(image, share)| {
            node.facts.images.get(*image).map(|size| (*size as f64 * share) as i64)
        });
        let bytes = present.sum::<i64>().clamp(MIN_BYTES, self.max_bytes);
        MAX_SCORE * (bytes - MIN_BYTES) / (self.max_bytes - MIN_BYTES)
    }
}
