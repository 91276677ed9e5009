//! `ServiceAccount`: every pod runs as an account that exists, and finds its token, the CA and its
//! namespace mounted, unless pod or account decline.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount as Account;
use pintle_machinery::object;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Slightly above an hour, so that it is told from a user's own 3600.
const TOKEN_SECONDS: i64 = 3607;
/// The account of a namespace created a moment ago may not exist yet.
const LOOKUPS_MAX: u32 = 10;
const LOOKUP_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct ServiceAccount;

#[async_trait::async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && cx.is("", "pods", "")
    }

    async fn admit(&self, cx: &Context, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        let forbidden = |why: String| ApiError::forbidden(&cx.group_resource(), &cx.name, why);
        if object::annotation(pod, MIRROR_ANNOTATION).is_some() {
            return mirror_pod_is_bare(pod).map_err(forbidden);
        }
        let name = account_name(pod);
        let Some(account) = find(cx, &name).await? else {
            return Err(forbidden(format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                cx.namespace
            )));
        };
        fill_in(pod, &name, &account);
        Ok(())
    }
}

async fn find(cx: &Context, name: &str) -> ApiResult<Option<Account>> {
    if let Some(account) = cx.registry.get::<Account>(&cx.namespace, name).await? {
        return Ok(Some(account));
    }
    for attempt in 1.. {
        let account = cx.registry.get_live::<Account>(&cx.namespace, name).await?;
        if account.is_some() || attempt == LOOKUPS_MAX || name != "default" {
            return Ok(account);
        }
        tokio::time::sleep(LOOKUP_PAUSE).await;
    }
    Ok(None)
}

fn account_name(pod: &Value) -> String {
    let name = object::get_str(pod, &["spec", "serviceAccountName"]);
    let name =
        if name.is_empty() { object::get_str(pod, &["spec", "serviceAccount"]) } else { name };
    if name.is_empty() { "default".to_owned() } else { name.to_owned() }
}

/// A mirror of a static pod must not reach for what only the API can give.
fn mirror_pod_is_bare(pod: &Value) -> Result<(), String> {
    if !object::get_str(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    let projects_token = object::get_list(pod, &["spec", "volumes"])
        .iter()
        .flat_map(|volume| object::get_list(volume, &["projected", "sources"]))
        .any(|source| source.get("serviceAccountToken").is_some());
    if projects_token {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".into());
    }
    Ok(())
}

fn fill_in(pod: &mut Value, name: &str, account: &Account) {
    let wants_token = object::get(pod, &["spec", "automountServiceAccountToken"])
        .and_then(Value::as_bool)
        .or(account.automount_service_account_token)
        .unwrap_or(true);
    let spec = object::entry_object(object::as_object_mut(pod), "spec");
    spec.insert("serviceAccountName".into(), name.into());
    spec.insert("serviceAccount".into(), name.into());
    let has_pull_secrets =
        spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if let (false, Some(secrets)) = (has_pull_secrets, &account.image_pull_secrets) {
        let names: Vec<Value> = secrets.iter().map(|s| json!({"name": s.name})).collect();
        if !names.is_empty() {
            spec.insert("imagePullSecrets".into(), names.into());
        }
    }
    if wants_token {
        mount_token(pod);
    }
}

/// Adds the token volume, when some container has nothing of its own at the well-known path.
fn mount_token(pod: &mut Value) {
    let (volume, exists) = token_volume_name(pod);
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            mounted |= mount_into(container, &volume);
        }
    }
    if mounted && !exists {
        let spec = object::entry_object(object::as_object_mut(pod), "spec");
        push(spec.entry("volumes").or_insert_with(|| json!([])), token_volume(&volume));
    }
}

fn mount_into(container: &mut Value, volume: &str) -> bool {
    let mounts = object::get_list(container, &["volumeMounts"]);
    if mounts.iter().any(|mount| object::get_str(mount, &["mountPath"]) == MOUNT_PATH) {
        return false;
    }
    let mounts =
        object::as_object_mut(container).entry("volumeMounts").or_insert_with(|| json!([]));
    push(mounts, json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

/// A pod that was exported and created again brings its volume along.
fn token_volume_name(pod: &Value) -> (String, bool) {
    let existing = object::get_list(pod, &["spec", "volumes"])
        .iter()
        .map(|volume| object::get_str(volume, &["name"]))
        .find(|name| name.starts_with("kube-api-access-"));
    match existing {
        Some(name) => (name.to_owned(), true),
        None => (format!("kube-api-access-{}", suffix()), false),
    }
}

/// Five characters that cannot spell anything.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(value: Value) -> Account {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_container_gets_the_token_of_the_default_account() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}],
        }});
        let name = account_name(&pod);
        fill_in(&mut pod, &name, &account(json!({})));
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert!(volume.starts_with("kube-api-access-") && volume.len() == 21);
        for pointer in ["/spec/initContainers/0", "/spec/containers/0", "/spec/containers/1"] {
            let mounts = pod.pointer(pointer).unwrap()["volumeMounts"].as_array().unwrap();
            let mount = mounts.last().unwrap();
            assert_eq!(mount, &json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
        }
    }

    #[test]
    fn pod_wins_over_account_about_the_token() {
        let cases = [
            (json!(null), json!(null), true),
            (json!(null), json!(false), false),
            (json!(true), json!(false), true),
            (json!(false), json!(true), false),
        ];
        for (pod_says, account_says, mounted) in cases {
            let mut pod = json!({"spec": {"containers": [{"name": "a"}], "automountServiceAccountToken": pod_says}});
            let account = account(json!({"automountServiceAccountToken": account_says}));
            fill_in(&mut pod, "default", &account);
            assert_eq!(pod["spec"].get("volumes").is_some(), mounted, "{pod_says} {account_says}");
        }
    }

    #[test]
    fn own_mounts_and_own_pull_secrets_are_kept() {
        let mut pod = json!({"spec": {
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "mine"}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}],
        }});
        let account = account(json!({"imagePullSecrets": [{"name": "theirs"}]}));
        let name = account_name(&pod);
        fill_in(&mut pod, &name, &account);
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "mine"}]));
        assert!(pod["spec"].get("volumes").is_none());
        pod["spec"]["imagePullSecrets"] = json!([]);
        fill_in(&mut pod, "robot", &account);
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "theirs"}]));
    }

    #[test]
    fn filling_in_twice_adds_nothing() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        fill_in(&mut pod, "default", &account(json!({})));
        let once = pod.clone();
        fill_in(&mut pod, "default", &account(json!({})));
        assert_eq!(pod, once);
    }

    #[test]
    fn mirror_pods_have_no_account() {
        assert!(mirror_pod_is_bare(&json!({"spec": {}})).is_ok());
        assert!(mirror_pod_is_bare(&json!({"spec": {"serviceAccountName": "x"}})).is_err());
        let projected = json!({"spec": {"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}});
        assert!(mirror_pod_is_bare(&projected).is_err());
    }
}
