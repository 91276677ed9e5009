//! Root CA publisher: every namespace has the ConfigMap `kube-root-ca.crt`, by which its pods know the apiserver.

use crate::{
    object::{ObjectKey, is_deleting},
    runtime::{Controller, Setup, Store, SyncError, Verdict},
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use std::{collections::BTreeMap, sync::Arc};

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// What is to be written.
#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    Create(ConfigMap),
    Replace(ConfigMap),
}

/// Compares the ConfigMap of a namespace with what it has to be.
fn reconcile(namespace: &str, present: Option<&ConfigMap>, root_ca_pem: &str) -> Plan {
    let data = BTreeMap::from([(KEY.to_owned(), root_ca_pem.to_owned())]);
    match present {
        Some(map) if map.data.as_ref() == Some(&data) => Plan::Keep,
        Some(map) => {
            Plan::Replace(ConfigMap { data: Some(data), binary_data: None, ..map.clone() })
        }
        None => {
            let description = "Contains a CA bundle that can be used to verify the kube-apiserver \
                               when using internal endpoints such as the internal service IP or \
                               kubernetes.default.svc. No other usage is guaranteed across \
                               distributions of Kubernetes clusters.";
            Plan::Create(ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(namespace.to_owned()),
                    annotations: Some([(DESCRIPTION.to_owned(), description.to_owned())].into()),
                    ..Default::default()
                },
                data: Some(data),
                ..Default::default()
            })
        }
    }
}

/// Registers the controller.
pub(super) fn register(setup: &mut Setup) {
    let queue = setup.queue();
    let namespaces = setup.informer::<Namespace>();
    let maps = setup.informer::<ConfigMap>();
    namespaces.enqueue(&queue);
    let again = queue.clone();
    maps.on_change(move |change| {
        let meta = &change.object().metadata;
        if meta.name.as_deref() == Some(NAME) {
            again.add(ObjectKey::new("", meta.namespace.as_deref().unwrap_or_default()));
        }
    });
    let controller = RootCaPublisher {
        client: setup.client(),
        namespaces: namespaces.store(),
        maps: maps.store(),
        root_ca_pem: setup.config().root_ca_pem.clone(),
    };
    setup.controller("root-ca-publisher", queue, controller);
}

struct RootCaPublisher {
    client: Client,
    namespaces: Arc<Store<Namespace>>,
    maps: Arc<Store<ConfigMap>>,
    root_ca_pem: String,
}

#[async_trait]
impl Controller for RootCaPublisher {
    fn keys(&self) -> Vec<ObjectKey> {
        self.namespaces.keys()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Verdict, SyncError> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Verdict::Done) };
        if is_deleting(&namespace.metadata) {
            return Ok(Verdict::Done);
        }
        let present = self.maps.get(&ObjectKey::new(&key.name, NAME));
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &key.name);
        let params = PostParams::default();
        let outcome = match reconcile(&key.name, present.as_deref(), &self.root_ca_pem) {
            Plan::Keep => return Ok(Verdict::Done),
            Plan::Create(map) => api.create(&params, &map).await,
            Plan::Replace(map) => api.replace(NAME, &params, &map).await,
        };
        match outcome {
            // Somebody was faster, and the watch will show it; or the namespace is on its way out.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => {}
            outcome => drop(outcome?),
        }
        Ok(Verdict::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_is_created_once_and_restored_when_changed() {
        let Plan::Create(map) = reconcile("ns", None, "PEM") else { panic!("not created") };
        assert_eq!(map.metadata.namespace.as_deref(), Some("ns"));
        assert_eq!(reconcile("ns", Some(&map), "PEM"), Plan::Keep);
        let mut changed = map.clone();
        changed.data.as_mut().unwrap().insert("other".into(), "x".into());
        changed.metadata.resource_version = Some("7".into());
        let Plan::Replace(restored) = reconcile("ns", Some(&changed), "PEM") else {
            panic!("kept")
        };
        assert_eq!(restored.data, map.data);
        assert_eq!(restored.metadata.resource_version.as_deref(), Some("7"));
        assert!(matches!(reconcile("ns", Some(&map), "NEW"), Plan::Replace(_)));
    }
}
