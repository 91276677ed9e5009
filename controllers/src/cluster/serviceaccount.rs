//! ServiceAccount: every namespace has the account `default`.

use crate::{
    object::{ObjectKey, is_deleting},
    runtime::{Controller, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use std::sync::Arc;

const NAME: &str = "default";

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let namespaces = setup.informer::<Namespace>();
    let accounts = setup.informer::<ServiceAccount>();
    namespaces.enqueue(&queue);
    let again = queue.clone();
    accounts.on_change(move |change| {
        let meta = &change.object().metadata;
        if meta.name.as_deref() == Some(NAME) {
            again.add(ObjectKey::new("", meta.namespace.as_deref().unwrap_or_default()));
        }
    });
    let controller = ServiceAccountController {
        client: setup.client(),
        namespaces: namespaces.store(),
        accounts: accounts.store(),
    };
    setup.controller("serviceaccount", queue, controller);
}

struct ServiceAccountController {
    client: Client,
    namespaces: Arc<Store<Namespace>>,
    accounts: Arc<Store<ServiceAccount>>,
}

#[async_trait]
impl Controller for ServiceAccountController {
    fn keys(&self) -> Vec<ObjectKey> {
        self.namespaces.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Verdict::Done) };
        let present = self.accounts.get(&ObjectKey::new(&key.name, NAME)).is_some();
        if !is_deleting(&namespace.metadata) && !present {
            create(&self.client, &key.name).await?;
        }
        Ok(Verdict::Done)
    }
}

async fn create(client: &Client, namespace: &str) -> Result<(), kube::Error> {
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        ..Default::default()
    };
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    match api.create(&PostParams::default(), &account).await {
        // Somebody was faster; or the namespace is on its way out, and refuses.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => Ok(()),
        outcome => outcome.map(drop),
    }
}
