//! The claims of the pods: made before their pod, kept when it goes, unless `persistentVolumeClaimRetentionPolicy` says
//! otherwise. What is to be deleted with the set, or with a pod that is scaled away, is owned by it, and the garbage collector
//! does the rest.

use super::{
    Inputs,
    identity::{claim_name, claim_templates},
};
use crate::object::{controller_reference, is_deleting, uid};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::ResourceExt;

/// The claims that the pod of this ordinal lacks.
pub(super) fn missing(inputs: &Inputs<'_>, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let set = inputs.set;
    let templates = claim_templates(set).iter();
    let names = templates.map(|template| (claim_name(set, template, ordinal), template));
    let absent = names.filter(|(name, _)| (inputs.claim)(name).is_none());
    absent.map(|(name, template)| new(inputs, template, name)).collect()
}

fn new(
    inputs: &Inputs<'_>,
    template: &PersistentVolumeClaim,
    name: String,
) -> PersistentVolumeClaim {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(inputs.set.spec.selector.match_labels.clone().unwrap_or_default());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: inputs.set.namespace(),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            annotations: template.metadata.annotations.clone(),
            finalizers: template.metadata.finalizers.clone(),
            owner_references: template.metadata.owner_references.clone(),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether a claim of the ordinal is on its way out with a former pod: a new one must not start on it.
pub(super) fn is_stale(inputs: &Inputs<'_>, ordinal: i32) -> bool {
    let pod = format!("{}-{ordinal}", inputs.set.name_any());
    let mut claims = claim_templates(inputs.set)
        .iter()
        .filter_map(|template| (inputs.claim)(&claim_name(inputs.set, template, ordinal)));
    claims.any(|claim| {
        let former = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == pod;
        is_deleting(&claim.metadata) || claim.owner_references().iter().any(former)
    })
}

/// The claims of a pod whose owners are not what the retention policy asks for, put right.
pub(super) fn with_wrong_owners(
    inputs: &Inputs<'_>,
    pod: &Pod,
    ordinal: i32,
) -> Vec<PersistentVolumeClaim> {
    let set = inputs.set;
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |which: Option<&String>| which.map(String::as_str) == Some("Delete");
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let by_pod = when_scaled && !inputs.wants(ordinal);
    let by_set = when_deleted && !by_pod;
    let wanted = [
        (uid(&set.metadata), by_set.then(|| controller_reference(set))),
        (uid(&pod.metadata), by_pod.then(|| controller_reference(pod))),
    ];
    let claims = claim_templates(set)
        .iter()
        .filter_map(|template| (inputs.claim)(&claim_name(set, template, ordinal)));
    let fixed = claims.filter_map(|claim| {
        let before = claim.owner_references();
        let mut owners: Vec<OwnerReference> = before
            .iter()
            .filter(|owner| {
                wanted.iter().all(|(uid, wanted)| owner.uid != *uid || wanted.is_some())
            })
            .cloned()
            .collect();
        for (uid, reference) in &wanted {
            let controlled = owners.iter().any(|owner| owner.controller == Some(true));
            if let Some(reference) = reference
                && !controlled
                && !owners.iter().any(|owner| owner.uid == *uid)
            {
                owners.push(reference.clone());
            }
        }
        (owners != before).then(|| {
            let mut claim = (*claim).clone();
            claim.metadata.owner_references = Some(owners);
            claim
        })
    });
    fixed.collect()
}
