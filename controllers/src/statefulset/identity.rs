//! Who a pod of the set is: its name, ordinal, labels and host name, the revision it is made of, and its volumes.

use super::Inputs;
use crate::{
    history::{self, HASH_LABEL},
    object::controller_reference,
    pod::from_template,
};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in the name of a pod of the set called `set`.
pub(super) fn ordinal_of(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// Whether a pod has a name of the set's.
pub(super) fn has_its_name(set: &ObjectMeta, pod: &Pod) -> bool {
    ordinal_of(set.name.as_deref().unwrap_or_default(), &pod.name_any()).is_some()
}

/// The revision that a pod was made of, by name.
pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.labels().get(HASH_LABEL).map_or("", String::as_str)
}

/// The labels that tell who a pod is.
fn labels(name: &str, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, name.to_owned()), (POD_INDEX, ordinal.to_string())]
}

/// The labels that a pod lacks, if it lacks any.
pub(super) fn missing_labels(pod: &Pod, ordinal: i32) -> Vec<(&'static str, String)> {
    let wanted = labels(&pod.name_any(), ordinal);
    wanted.into_iter().filter(|(key, value)| pod.labels().get(*key) != Some(value)).collect()
}

/// A new pod for this ordinal: below the partition of an update of the current revision, else of the new one.
pub(super) fn new(inputs: &Inputs<'_>, ordinal: i32) -> Pod {
    let index = ordinal - inputs.first_ordinal();
    let keeps = inputs.rolls() && index < inputs.partition();
    let revision = if keeps { inputs.current } else { inputs.update };
    let set = inputs.set;
    let template = history::template(revision).unwrap_or_else(|| set.spec.template.clone());
    let name = format!("{}-{ordinal}", set.name_any());
    let namespace = set.namespace().unwrap_or_default();
    let mut pod = from_template(&template, &namespace, name.clone(), controller_reference(set));
    for (key, value) in labels(&name, ordinal) {
        pod.labels_mut().insert(key.to_owned(), value);
    }
    set_revision(&mut pod, revision);
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(name);
        spec.subdomain = set.spec.service_name.clone().filter(|service| !service.is_empty());
        let claims = claim_templates(set).iter().map(|template| volume(set, template, ordinal));
        let mut volumes: Vec<_> = claims.collect();
        let others = spec.volumes.take().unwrap_or_default();
        volumes.extend(others.into_iter().filter(|other| {
            !claim_templates(set).iter().any(|template| template.name_any() == other.name)
        }));
        spec.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    }
    pod
}

fn set_revision(pod: &mut Pod, revision: &ControllerRevision) {
    pod.labels_mut().insert(HASH_LABEL.to_owned(), revision.name_any());
}

fn volume(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> Volume {
    Volume {
        name: template.name_any(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(set, template, ordinal),
            read_only: None,
        }),
        ..Default::default()
    }
}

/// The templates of the claims that each pod has.
pub(super) fn claim_templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// The name of a claim of a pod.
pub(super) fn claim_name(
    set: &StatefulSet,
    template: &PersistentVolumeClaim,
    ordinal: i32,
) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}
