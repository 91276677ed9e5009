//! What every part of one node shares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use kube::runtime::reflector::Store;

use crate::config::Paths;
use crate::events::Recorder;
use crate::image_manager::ImageManager;
use crate::pod::PodExt;
use crate::pod::env::Facts;
use crate::pod::sandbox_config::ClusterDns;
use crate::runtime::Runtime;

/// One node.
pub struct NodeContext {
    /// Its name.
    pub name: String,
    /// The connection to the apiserver.
    pub client: Client,
    /// What runs its containers.
    pub runtime: Arc<dyn Runtime>,
    /// Where its files are.
    pub paths: Paths,
    /// Its address.
    pub node_ip: IpAddr,
    /// Where its pods look names up.
    pub dns: ClusterDns,
    /// Its events.
    pub events: Recorder,
    /// Its images.
    pub images: ImageManager,
    /// The services that pods are told about in their environment.
    pub services: Store<Service>,
    /// What pods may use of it.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Its memory in bytes.
    pub memory: i64,
}

impl NodeContext {
    /// What the downward API of a pod can say.
    pub fn facts(&self, pod: &Pod, pod_ips: &[String]) -> Facts {
        let host_ip = self.node_ip.to_string();
        Facts {
            node_name: self.name.clone(),
            pod_ips: if pod.host_network() { vec![host_ip.clone()] } else { pod_ips.to_vec() },
            host_ip,
            allocatable: self.allocatable.clone(),
        }
    }
}
