//! Jobs: a job that does not choose its pods by itself is given a selector on its own uid.

use pintle_machinery::object;
use serde_json::{Map, Value, json};

use super::{Context, Strategy};
use crate::error::ApiResult;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_JOB_NAME: &str = "job-name";

/// The strategy of `jobs`.
pub(super) struct Job;

#[async_trait::async_trait]
impl Strategy for Job {
    async fn prepare_for_create(&self, _cx: &Context, job: &mut Value) -> ApiResult<()> {
        job["status"] = json!({});
        if object::get(job, &["spec", "manualSelector"]) != Some(&Value::Bool(true)) {
            generate_selector(job);
        }
        Ok(())
    }

    /// Clients from before garbage collection delete a job and expect its pods to stay.
    fn orphan_by_default(&self) -> bool {
        true
    }
}

fn generate_selector(job: &mut Value) {
    let (uid, name) = (object::uid(job).to_owned(), object::name(job).to_owned());
    let spec = object::entry_object(object::as_object_mut(job), "spec");
    let template = object::entry_object(spec, "template");
    let metadata = object::entry_object(template, "metadata");
    let labels = object::entry_object(metadata, "labels");
    for (key, value) in [
        (CONTROLLER_UID, &uid),
        (LEGACY_CONTROLLER_UID, &uid),
        (JOB_NAME, &name),
        (LEGACY_JOB_NAME, &name),
    ] {
        labels.insert(key.into(), value.clone().into());
    }
    let selector: &mut Map<String, Value> = object::entry_object(spec, "selector");
    object::entry_object(selector, "matchLabels").insert(CONTROLLER_UID.into(), uid.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_and_labels_carry_the_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        generate_selector(&mut job);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {CONTROLLER_UID: "u"}}));
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels[LEGACY_JOB_NAME], "j");
        assert_eq!(labels[CONTROLLER_UID], "u");
        assert_eq!(labels["a"], "b");
    }
}
