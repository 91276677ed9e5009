//! What nodes do for their pods, pretended: a pod becomes ready, or ends at once if its annotation `test/ends` says how, and a
//! deleted one goes.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub(super) async fn run(client: Client, stop: CancellationToken) {
    let pods = Api::<Pod>::all(client.clone());
    while !stop.is_cancelled() {
        for pod in
            pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
        {
            // A pod may go, or change, at any time; the next round sees it as it is then.
            let _outcome = drive(&client, &pod).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn drive(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        if pod.metadata.deletion_grace_period_seconds != Some(0) {
            api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        }
        return Ok(());
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if phase != "Pending" {
        return Ok(());
    }
    let ends = pod.annotations().get("test/ends").map(String::as_str);
    let ready = if ends.is_some() { "False" } else { "True" };
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let change = json!({ "status": {
        "phase": ends.unwrap_or("Running"),
        "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": now }],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(change)).await?;
    Ok(())
}
