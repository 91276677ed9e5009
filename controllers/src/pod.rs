//! What controllers ask of a pod: does it run, is it ready, since when, and how one is made from a template.

use crate::{object::is_deleting, runtime::random_suffix};
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use std::{collections::BTreeMap, time::Duration};

/// Where a pod is in its life; a pod that says nothing is pending.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether all containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither finished nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(&pod.metadata)
}

/// Whether the pod still runs but is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && is_deleting(&pod.metadata)
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether the pod may get traffic.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is ready, if it is and says when.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether a pod counts as available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Not ready.
    Unready,
    /// Ready, but not for `minReadySeconds` yet; available after this time.
    In(Duration),
    /// Ready for long enough.
    Available,
}

/// Whether the pod has been ready for `min_ready_seconds`.
pub fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    if !is_ready(pod) {
        return Availability::Unready;
    }
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let need = Duration::from_secs(min_ready_seconds.unsigned_abs().into());
    let Some(since) = ready_since(pod) else { return Availability::Unready };
    let been = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match need.checked_sub(been) {
        Some(rest) if !rest.is_zero() => Availability::In(rest),
        _ => Availability::Available,
    }
}

/// Whether the pod has been ready for long enough.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    availability(pod, min_ready_seconds, now) == Availability::Available
}

/// When the first of these pods becomes available by the mere passing of time.
pub fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let waits =
        pods.into_iter().filter_map(|pod| match availability(pod, min_ready_seconds, now) {
            Availability::In(rest) => Some(rest),
            Availability::Unready | Availability::Available => None,
        });
    waits.min()
}

/// The node the pod is bound to, or "".
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The labels of the pods that this template makes.
pub fn template_labels(template: &PodTemplateSpec) -> BTreeMap<String, String> {
    template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default()
}

/// A pod from `template`, called `name`, controlled by `owner`.
pub fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    name: String,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The same with a generated name: `base` and five random characters.
pub fn generate(
    template: &PodTemplateSpec,
    namespace: &str,
    base: &str,
    owner: OwnerReference,
) -> Pod {
    let prefix = format!("{base}-");
    let mut pod = from_template(template, namespace, generated_name(&prefix), owner);
    pod.metadata.generate_name = Some(prefix);
    pod
}

/// `prefix`, cut so that the name stays a valid DNS label, and five random characters.
pub fn generated_name(prefix: &str) -> String {
    const NAME_MAX: usize = 63;
    const SUFFIX: usize = 5;
    let cut = prefix.get(..NAME_MAX - SUFFIX).unwrap_or(prefix);
    format!("{cut}{}", random_suffix())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::{api::core::v1::PodStatus, apimachinery::pkg::apis::meta::v1::Time};

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A running pod, ready since the given second.
    pub(crate) fn running(name: &str, ready: Option<i64>) -> Pod {
        let condition = PodCondition {
            type_: "Ready".into(),
            status: if ready.is_some() { "True" } else { "False" }.into(),
            last_transition_time: ready.map(|second| Time(at(second))),
            ..Default::default()
        };
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                uid: Some(format!("uid-{name}")),
                ..Default::default()
            },
            spec: None,
            status: Some(PodStatus {
                phase: Some("Running".into()),
                conditions: Some(vec![condition]),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let pod = running("a", Some(100));
        assert_eq!(availability(&pod, 0, at(100)), Availability::Available);
        assert_eq!(availability(&pod, 10, at(104)), Availability::In(Duration::from_secs(6)));
        assert_eq!(availability(&pod, 10, at(110)), Availability::Available);
        assert_eq!(availability(&running("b", None), 0, at(110)), Availability::Unready);
        assert_eq!(
            next_available([&pod, &running("b", None)], 10, at(104)),
            Some(Duration::from_secs(6))
        );
    }

    #[test]
    fn generated_names_fit_a_label() {
        assert_eq!(generated_name(&"x".repeat(80)).len(), 63);
        assert!(generated_name("web-").starts_with("web-"));
    }
}
