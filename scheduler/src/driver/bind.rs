//! Binding a pod to its node.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::pod::PodInfo;

/// The most that a binding may take. It may have happened all the same; the watch will tell.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a pod could not be bound.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The apiserver said no, or could not be reached.
    #[error("binding rejected: {0}")]
    Rejected(#[from] Box<kube::Error>),
    /// There was no answer.
    #[error("binding timed out")]
    TimedOut,
}

/// Binds.
pub(super) async fn bind(client: Client, pod: &PodInfo, node: &str) -> Result<(), Failure> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let params = PostParams::default();
    let request =
        pods.create_subresource::<_, serde_json::Value>("binding", &pod.name, &params, &binding);
    match timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map(drop).map_err(|error| Box::new(error).into()),
        Err(_) => Err(Failure::TimedOut),
    }
}
