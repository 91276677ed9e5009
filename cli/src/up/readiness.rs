//! Waiting for a cluster: what is awaited is always named, so that a time-out says what is missing.

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::ProgressBar;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

use crate::clients;
use crate::cluster::{Layout, Shape};

const POLL: Duration = Duration::from_millis(150);

/// Returns when the API answers `/readyz` through the front and every node is Ready.
pub(super) async fn wait(
    layout: &Layout,
    shape: &Shape,
    progress: &ProgressBar,
    limit: Duration,
) -> anyhow::Result<()> {
    let until = Instant::now() + limit;
    let expected = u32::from(shape.nodes) + shape.hollow_nodes;
    let client = clients::kube_client_of_file(&layout.admin_kubeconfig()).await?;
    loop {
        let missing = match missing(&client, expected).await {
            Ok(None) => return Ok(()),
            Ok(Some(missing)) => missing,
            Err(error) => format!("the API does not answer yet: {error:#}"),
        };
        if Instant::now() > until {
            bail!(
                "not ready after {} s: {missing}; the logs are in {}",
                limit.as_secs(),
                layout.root().join("logs").display()
            );
        }
        progress.set_message(missing);
        tokio::time::sleep(POLL).await;
    }
}

/// What is not there yet, in words.
async fn missing(client: &kube::Client, expected: u32) -> anyhow::Result<Option<String>> {
    let request = http_get("/readyz")?;
    client.request_text(request).await?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let ready = nodes.items.iter().filter(|node| is_ready(node)).count();
    if ready < expected as usize {
        return Ok(Some(format!("{ready} of {expected} nodes are Ready")));
    }
    Ok(None)
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

/// Whether the node says that pods can run on it.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
