//! Single passes: what is done about pods, and what the status says.

use super::*;
use crate::pod::tests::at;
use serde_json::{Value, from_value, json};
use std::{collections::HashSet, fmt::Write, sync::Arc};

/// A job that started at second 1, with these fields of the spec and of the status.
pub(super) fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "sum", "namespace": "ns", "uid": "job"},
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {"startTime": at(1).to_string()},
    });
    for (part, fields) in [("spec", spec), ("status", status)] {
        let fields = fields.as_object().unwrap().clone();
        job[part].as_object_mut().unwrap().extend(fields);
    }
    from_value(job).unwrap()
}

/// `name:phase`, then `@index`, `!` (deleting), `-` (counted and let go), `xN` (failed N times before), `~` (ready).
fn pod(text: &str) -> Arc<Pod> {
    let (name, rest) = text.split_once(':').unwrap();
    let after = |mark: char| {
        let (_, rest) = rest.split_once(mark)?;
        Some(rest.chars().take_while(char::is_ascii_digit).collect::<String>())
    };
    let phase = match rest.as_bytes()[0] {
        b'S' => "Succeeded",
        b'F' => "Failed",
        b'R' => "Running",
        _ => "Pending",
    };
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "annotations": {},
            "creationTimestamp": at(2).to_string(), "finalizers": [FINALIZER]},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": if rest.contains('~') { "True" } else { "False" }, "lastTransitionTime": at(50).to_string()}]},
    });
    let meta = &mut pod["metadata"];
    if let Some(index) = after('@') {
        meta["annotations"]["batch.kubernetes.io/job-completion-index"] = json!(index);
    }
    if let Some(count) = after('x') {
        meta["annotations"]["batch.kubernetes.io/job-index-failure-count"] = json!(count);
    }
    if rest.contains('!') {
        meta["deletionTimestamp"] = json!(at(60).to_string());
    }
    if rest.contains('-') {
        meta["finalizers"] = json!([]);
    }
    Arc::new(from_value(pod).unwrap())
}

pub(super) fn describe(work: &Work) -> String {
    let mut text = String::new();
    let names = |text: &mut String, pods: &[Arc<Pod>]| {
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        write!(text, "{}", names.join(",")).unwrap();
    };
    match work {
        Work::Hold => text.push_str("hold"),
        Work::Keep => text.push_str("keep"),
        Work::Wait(wait) => write!(text, "wait {}", wait.as_secs()).unwrap(),
        Work::Create(slots) => {
            match slots.iter().map(|slot| slot.index).collect::<Option<Vec<_>>>() {
                Some(indexes) => write!(text, "create @{indexes:?}").unwrap(),
                None => write!(text, "create {}", slots.len()).unwrap(),
            }
        }
        Work::Remove(pods) => {
            text.push_str("remove ");
            names(&mut text, pods);
        }
        Work::Stop(pods) => {
            text.push_str("stop ");
            names(&mut text, pods);
        }
    }
    text
}

/// The work, and the report of it all going well.
fn run(job: &Job, pods: &str, now: i64) -> (String, Report) {
    let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
    let inputs = Inputs {
        job,
        pods: &pods,
        released: &HashSet::new(),
        settled: true,
        backoff: Backoff::default(),
        now: at(now),
    };
    let view = View::new(&inputs).unwrap();
    let work = view.work();
    let done = match &work {
        Work::Create(slots) => Done { created: slots.len() as i32, ..Done::default() },
        Work::Remove(pods) | Work::Stop(pods) => Done {
            deleted: pods.len() as i32,
            deleted_ready: pods.iter().filter(|pod| crate::pod::is_ready(pod)).count() as i32,
            ..Done::default()
        },
        _ => Done::default(),
    };
    let report = view.report(&work, done);
    (describe(&work), report)
}

#[test]
fn pods_make_up_for_what_is_missing() {
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let per_index = indexed(json!({"backoffLimitPerIndex": 1, "backoffLimit": i32::MAX}));
    let none = || json!({});
    for (spec, status, pods, now, want) in [
        (json!({"completions": 3, "parallelism": 2}), none(), "", 100, "create 2"),
        (json!({"completions": 3, "parallelism": 2}), none(), "a:R b:P", 100, "keep"),
        (json!({"completions": 3, "parallelism": 2}), none(), "a:R b:S", 100, "create 1"),
        (json!({"completions": 3, "parallelism": 2}), json!({"succeeded": 2}), "a:R", 100, "keep"),
        (json!({"completions": 3, "parallelism": 2}), none(), "a:F", 55, "wait 5"),
        (json!({"completions": 3, "parallelism": 2}), none(), "a:F", 60, "create 2"),
        (json!({"completions": 3, "parallelism": 1}), none(), "a:R~ b:P", 100, "remove b"),
        (json!({"completions": 5, "parallelism": 0}), none(), "a:R", 100, "remove a"),
        (json!({"completions": null, "parallelism": 3}), none(), "a:R", 100, "create 2"),
        (json!({"completions": null, "parallelism": 3}), none(), "a:R b:S", 100, "keep"),
        (json!({"suspend": true}), none(), "a:R", 100, "remove a"),
        (json!({"suspend": true}), none(), "", 100, "keep"),
        // A pod on its way out is replaced at once, or when it has gone.
        (json!({"podReplacementPolicy": "TerminatingOrFailed"}), none(), "a:R!", 100, "create 1"),
        (json!({"podReplacementPolicy": "Failed"}), none(), "a:R!", 100, "keep"),
        (json!({"podReplacementPolicy": "Failed"}), none(), "a:F!", 100, "create 1"),
        (indexed(none()), none(), "", 100, "create @[0, 1]"),
        (indexed(none()), json!({"completedIndexes": "0,2"}), "a:R@1", 100, "create @[3]"),
        (indexed(none()), none(), "a:S@0 b:R@2", 100, "create @[1]"),
        (indexed(none()), none(), "a:R@1~ b:P@1", 100, "remove b"),
        (indexed(none()), none(), "a:R@1 b:R@7", 100, "remove b"),
        (indexed(none()), none(), "a:R@1 b:R", 100, "remove b"),
        (indexed(none()), none(), "a:F@0 b:R@1", 55, "wait 5"),
        // With a limit for each index, only the failed one waits.
        (per_index.clone(), none(), "a:F@0 b:R@1", 55, "wait 5"),
        (per_index.clone(), none(), "a:F@0", 55, "create @[1]"),
        (per_index.clone(), none(), "a:F@0", 61, "create @[0, 1]"),
        (per_index.clone(), none(), "a:F@0x1", 61, "create @[1, 2]"),
        (per_index.clone(), json!({"failedIndexes": "0-2"}), "", 61, "create @[3]"),
        // The end.
        (json!({"backoffLimit": 1}), json!({"failed": 1}), "a:F b:R", 100, "stop b"),
        (json!({"activeDeadlineSeconds": 99}), none(), "a:R", 100, "stop a"),
        (json!({"activeDeadlineSeconds": 100}), none(), "a:R", 100, "keep"),
        (json!({"activeDeadlineSeconds": 9, "suspend": true}), none(), "", 100, "keep"),
        (
            indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 1})),
            none(),
            "a:F@0 b:F@1 c:R@2",
            100,
            "stop c",
        ),
        (
            indexed(json!({"backoffLimitPerIndex": 0})),
            json!({"completedIndexes": "1-3"}),
            "a:F@0",
            100,
            "stop ",
        ),
        (
            indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0"}]}})),
            none(),
            "a:S@0 b:R@1",
            100,
            "stop b",
        ),
    ] {
        let job = job(spec.clone(), status.clone());
        assert_eq!(run(&job, pods, now).0, want, "{spec} {status} {pods} at {now}");
    }
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
}

#[test]
fn ended_pods_are_listed_before_they_are_let_go_and_counted_after() {
    let spec = json!({"completions": 3, "parallelism": 3});
    let (_, mut report) = run(&job(spec.clone(), json!({})), "a:S b:F c:R~ d:S-", 100);
    assert_eq!(names(&report.release), ["a", "b"]);
    let uncounted = report.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
    assert_eq!(uncounted.failed, Some(vec!["b".to_owned()]));
    assert_eq!((report.status.succeeded, report.status.failed), (None, None));
    assert_eq!((report.status.active, report.status.ready), (Some(2), Some(1)), "c and a new one");

    let stored = report.status.clone();
    let released = HashSet::from(["a".to_owned()]);
    let (status, over) = report.settle(&stored, &released, false, at(101));
    assert_eq!((status.succeeded, status.failed, over), (Some(1), None, false));
    assert_eq!(
        status.uncounted_terminated_pods.clone().unwrap().failed,
        Some(vec!["b".to_owned()])
    );

    // The next pass finds the finalizer of b gone, and does not count a again.
    let mut next = job(spec, json!({}));
    next.status = Some(status);
    let (work, report) = run(&next, "a:S- b:F- c:R~ e:R", 200);
    assert_eq!((report.status.succeeded, report.status.failed), (Some(1), Some(1)));
    assert_eq!(work, "keep");
    assert!(report.release.is_empty());
}

#[test]
fn job_ends_when_all_is_counted_and_quiet() {
    let types = |status: &k8s_openapi::api::batch::v1::JobStatus| -> Vec<String> {
        status.conditions.iter().flatten().map(|condition| condition.type_.clone()).collect()
    };
    let (_, mut report) = run(&job(json!({}), json!({})), "a:S", 100);
    assert_eq!(types(&report.status), ["SuccessCriteriaMet"]);
    let stored = report.status.clone();
    let all = HashSet::from(["a".to_owned()]);
    let (status, over) = report.settle(&stored, &all, true, at(101));
    assert!(over);
    assert_eq!(types(&status), ["SuccessCriteriaMet", "Complete"]);
    assert_eq!(status.completion_time, Some(crate::object::time(at(101))));
    assert_eq!(report.news, [News::Completed { too_many: false }]);

    let (work, mut report) = run(&job(json!({"backoffLimit": 0}), json!({})), "a:F b:R~", 100);
    assert_eq!((work.as_str(), report.status.terminating), ("stop b", Some(1)));
    assert_eq!(types(&report.status), ["FailureTarget"]);
    assert_eq!(names(&report.release), ["a", "b"], "the end of a job fails what runs");
    let stored = report.status.clone();
    let all = HashSet::from(["a".to_owned(), "b".to_owned()]);
    let (status, over) = report.settle(&stored, &all, true, at(101));
    assert_eq!((over, status.failed), (false, Some(2)), "b still runs");

    let mut failing = job(json!({"backoffLimit": 0}), json!({}));
    failing.status = Some(status);
    let (work, mut report) = run(&failing, "", 130);
    assert_eq!(work, "stop ");
    let stored = report.status.clone();
    let (status, over) = report.settle(&stored, &HashSet::new(), true, at(131));
    assert!(over);
    assert_eq!(types(&status), ["FailureTarget", "Failed"]);
    let message = "Job has reached the specified backoff limit".to_owned();
    assert_eq!(report.news, [News::Failed { reason: "BackoffLimitExceeded".into(), message }]);
}

#[test]
fn suspension_is_told_once_and_resuming_starts_the_clock_anew() {
    let (_, suspended) = run(&job(json!({"suspend": true}), json!({})), "", 100);
    assert_eq!(suspended.news, [News::Suspended]);
    let mut next = job(json!({"suspend": true}), json!({}));
    next.status = Some(suspended.status);
    let (_, still) = run(&next, "", 110);
    assert_eq!(still.news, []);
    assert_eq!(Some(&still.status), next.status.as_ref());

    next.spec.as_mut().unwrap().suspend = Some(false);
    let (_, resumed) = run(&next, "", 200);
    assert_eq!(resumed.news, [News::Resumed]);
    assert_eq!(resumed.status.start_time, Some(crate::object::time(at(200))));
    let (_, never_suspended) = run(&job(json!({}), json!({})), "", 100);
    assert_eq!(never_suspended.status.conditions, None);
}

#[test]
fn indexes_are_reported_and_a_failed_pod_waits_for_its_successor() {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 5,
        "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX});
    let (work, report) = run(&job(spec, json!({})), "a:S@0 b:S@1 c:F@2 d:F@3x1 e:R@4", 100);
    assert_eq!(work, "create @[2]");
    assert_eq!(report.status.completed_indexes.as_deref(), Some("0,1"));
    assert_eq!(report.status.failed_indexes.as_deref(), Some("3"));
    assert_eq!(names(&report.release), ["a", "b", "d"], "c hands its count on first");
}

#[test]
fn pods_of_an_indexed_job_know_their_index() {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 3});
    let slot = Slot { index: Some(3), replaces: Some(pod("old:F@3x1")) };
    let made = template::pod(&job(spec, json!({})), &slot).unwrap();
    let name = made.metadata.name.unwrap();
    assert!(name.starts_with("sum-3-") && name.len() == 11, "{name}");
    let annotations = made.metadata.annotations.unwrap();
    assert_eq!(annotations["batch.kubernetes.io/job-completion-index"], "3");
    assert_eq!(annotations["batch.kubernetes.io/job-index-failure-count"], "2");
    assert_eq!(made.metadata.labels.unwrap()["batch.kubernetes.io/job-completion-index"], "3");
    assert_eq!(made.metadata.finalizers.unwrap(), [FINALIZER]);
    let spec = made.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("sum-3"));
    let env = &spec.containers[0].env.as_ref().unwrap()[0];
    let path = &env.value_from.as_ref().unwrap().field_ref.as_ref().unwrap().field_path;
    assert_eq!(
        (env.name.as_str(), path.as_str()),
        ("JOB_COMPLETION_INDEX", "metadata.labels['batch.kubernetes.io/job-completion-index']")
    );
}

#[test]
fn nobody_counts_the_pods_of_a_job_that_is_gone_or_over() {
    let mine = |uid: &str| {
        let mut pod = (*pod("a:F")).clone();
        pod.metadata.owner_references = Some(vec![crate::object::controller_reference(&Job {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some("sum".into()),
                uid: Some(uid.into()),
                ..Default::default()
            },
            ..Default::default()
        })]);
        pod
    };
    let running = Arc::new(job(json!({}), json!({})));
    let over = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    let over = Arc::new(job(json!({}), over));
    let is_orphan = |pod: &Pod, job: Option<&Arc<Job>>| orphans::is_orphan(pod, |_| job.cloned());
    assert!(!is_orphan(&mine("job"), Some(&running)));
    assert!(is_orphan(&mine("job"), Some(&over)));
    assert!(is_orphan(&mine("job"), None));
    assert!(is_orphan(&mine("another"), Some(&running)), "a new job of the same name");
    assert!(is_orphan(&pod("a:F"), None));
    assert!(!is_orphan(&pod("a:F-"), None), "nothing to let go");
}
