//! The pods of a job, and the count of failures that the pods of one index hand on to each other.

use super::{FINALIZER, Slot, indexes::COMPLETION_INDEX, policy};
use crate::{
    object::controller_reference,
    pod::{from_template, generated_name},
};
use k8s_openapi::api::{
    batch::v1::{Job, PodFailurePolicy},
    core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};
use kube::ResourceExt;

const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// Most characters of a generated name before its random ones.
const PREFIX_MAX: usize = 58;

/// How often the pods of an index failed before this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) counted: i32,
    ignored: i32,
}

impl Failures {
    pub(super) fn total(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }

    /// What the pod that replaces `pod` inherits.
    fn after(pod: &Pod, policy: Option<&PodFailurePolicy>) -> Self {
        let Self { counted, ignored } = failures_of_index(pod);
        if policy::counts(policy, pod) {
            Self { counted: counted.saturating_add(1), ignored }
        } else {
            Self { counted, ignored: ignored.saturating_add(1) }
        }
    }
}

/// The failures that are noted on a pod.
pub(super) fn failures_of_index(pod: &Pod) -> Failures {
    let noted = |name: &str| {
        let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(name));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    Failures { counted: noted(FAILURE_COUNT), ignored: noted(IGNORED_FAILURE_COUNT) }
}

/// A new pod for this place in the job.
pub(super) fn pod(job: &Job, slot: &Slot) -> Option<Pod> {
    let spec = job.spec.as_ref()?;
    let prefix = match slot.index {
        Some(index) => prefix_with_index(&job.name_any(), index),
        None => format!("{}-", job.name_any()),
    };
    let (namespace, name) = (job.namespace().unwrap_or_default(), generated_name(&prefix));
    let mut pod = from_template(&spec.template, &namespace, name, controller_reference(job));
    pod.metadata.generate_name = Some(prefix);
    if !pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        pod.finalizers_mut().push(FINALIZER.to_owned());
    }
    if let Some(index) = slot.index {
        set_index(&mut pod, &job.name_any(), index);
    }
    if spec.backoff_limit_per_index.is_some() {
        let replaced = slot.replaces.as_ref();
        let policy = spec.pod_failure_policy.as_ref();
        let failures = replaced.map(|pod| Failures::after(pod, policy)).unwrap_or_default();
        note(&mut pod, failures);
    }
    Some(pod)
}

fn prefix_with_index(job: &str, index: i32) -> String {
    let suffix = format!("-{index}-");
    let job = job.get(..PREFIX_MAX - suffix.len()).unwrap_or(job);
    format!("{job}{suffix}")
}

fn set_index(pod: &mut Pod, job: &str, index: i32) {
    pod.annotations_mut().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    pod.labels_mut().insert(COMPLETION_INDEX.to_owned(), index.to_string());
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job}-{index}"));
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(tell_index);
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_ENV) {
        return;
    }
    let field_path = format!("metadata.labels['{COMPLETION_INDEX}']");
    env.push(EnvVar {
        name: INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path, api_version: None }),
            ..Default::default()
        }),
        ..Default::default()
    });
}

fn note(pod: &mut Pod, failures: Failures) {
    let annotations = pod.annotations_mut();
    annotations.insert(FAILURE_COUNT.to_owned(), failures.counted.to_string());
    if failures.ignored > 0 {
        annotations.insert(IGNORED_FAILURE_COUNT.to_owned(), failures.ignored.to_string());
    }
}
