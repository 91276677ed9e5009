//! What is started, followed and forgotten.

use super::*;
use serde_json::{Value, from_value, json};

fn at(text: &str) -> Timestamp {
    format!("2026-01-01T{text}Z").parse().unwrap()
}

fn cron(spec: Value, status: Value) -> CronJob {
    let mut cron = json!({
        "metadata": {"name": "backup", "namespace": "ns", "uid": "cron", "creationTimestamp": at("09:00:30").to_string()},
        "spec": {"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"app": "backup"}, "annotations": {"a": "b"}},
                "spec": {"template": {}}}},
        "status": status,
    });
    cron["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    from_value(cron).unwrap()
}

/// `name@start`, ended `=Complete` or `=Failed` at the same time.
fn job(text: &str) -> Arc<Job> {
    let (name, rest) = text.split_once('@').unwrap();
    let (start, end) = rest.split_once('=').map_or((rest, None), |(start, end)| (start, Some(end)));
    let mut job = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "status": {"startTime": at(start).to_string()},
    });
    if let Some(end) = end {
        job["status"]["conditions"] = json!([{"type": end, "status": "True"}]);
        job["status"]["completionTime"] = json!(at(start).to_string());
    }
    Arc::new(from_value(job).unwrap())
}

fn active(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "uid": name})).collect()
}

fn run(cron: &CronJob, jobs: &str, gone: &[&str], now: &str) -> Outcome {
    let jobs: Vec<_> = jobs.split_whitespace().map(job).collect();
    let gone = gone.iter().map(|name| (*name).to_owned()).collect();
    reconcile(&Inputs { cron, jobs: &jobs, gone: &gone, now: at(now) })
}

fn minute(text: &str) -> i64 {
    at(text).as_second() / 60
}

#[test]
fn latest_missed_time_is_started_under_the_name_of_its_minute() {
    let none = || json!({});
    let last = |time: &str| json!({"lastScheduleTime": at(time).to_string()});
    let busy =
        || json!({"active": active(&["other"]), "lastScheduleTime": at("09:10:00").to_string()});
    for (spec, status, now, starts, reasons) in [
        (none(), none(), "09:05:00", None, vec![]),
        (none(), none(), "09:10:00", Some("09:10:00"), vec![]),
        (none(), none(), "09:34:00", Some("09:30:00"), vec![]),
        (none(), last("09:30:00"), "09:34:00", None, vec![]),
        (none(), last("09:20:00"), "09:34:00", Some("09:30:00"), vec![]),
        (none(), last("09:00:00"), "23:55:00", Some("23:50:00"), vec![]),
        (
            json!({"schedule": "* * * * *"}),
            last("09:00:00"),
            "10:41:00",
            Some("10:41:00"),
            vec!["TooManyMissedTimes"],
        ),
        (json!({"schedule": "* * * * *"}), last("09:00:00"), "10:40:00", Some("10:40:00"), vec![]),
        (
            json!({"schedule": "* * * * *", "startingDeadlineSeconds": 300}),
            last("09:00:00"),
            "10:41:00",
            Some("10:41:00"),
            vec![],
        ),
        (json!({"startingDeadlineSeconds": 200}), none(), "09:14:00", None, vec!["MissSchedule"]),
        (json!({"startingDeadlineSeconds": 250}), none(), "09:14:00", Some("09:10:00"), vec![]),
        (json!({"suspend": true}), none(), "09:34:00", None, vec![]),
        (json!({"schedule": "no"}), none(), "09:34:00", None, vec!["UnparseableSchedule"]),
        (json!({"timeZone": "Mars/Base"}), none(), "09:34:00", None, vec!["UnknownTimeZone"]),
        (
            json!({"schedule": "30 18 * * *", "timeZone": "Asia/Tokyo"}),
            none(),
            "09:34:00",
            Some("09:30:00"),
            vec![],
        ),
        (none(), busy(), "09:34:00", Some("09:30:00"), vec![]),
        (
            json!({"concurrencyPolicy": "Forbid"}),
            busy(),
            "09:34:00",
            None,
            vec!["JobAlreadyActive"],
        ),
        (
            json!({"concurrencyPolicy": "Forbid"}),
            last("09:20:00"),
            "09:34:00",
            Some("09:30:00"),
            vec![],
        ),
        (json!({"concurrencyPolicy": "Replace"}), busy(), "09:34:00", Some("09:30:00"), vec![]),
    ] {
        let outcome = run(&cron(spec.clone(), status.clone()), "other@09:10:00", &[], now);
        let told: Vec<_> = outcome
            .news
            .iter()
            .map(|news| news.reason)
            .filter(|it| *it != "UnexpectedJob")
            .collect();
        assert_eq!(told, reasons, "{spec} {status} {now}");
        let start = outcome.start.as_ref().map(|start| (start.job.name_any(), start.at));
        let want = starts.map(|time| (format!("backup-{}", minute(time)), at(time)));
        assert_eq!(start, want, "{spec} {status} {now}");
        let replaces = outcome.start.iter().flat_map(|start| &start.replaces).count();
        assert_eq!(replaces == 1, spec["concurrencyPolicy"] == "Replace", "{spec}");
    }
}

#[test]
fn job_is_made_of_the_template_and_its_time() {
    let spec = json!({"timeZone": "Asia/Tokyo"});
    let start = run(&cron(spec, json!({})), "", &[], "09:10:01").start.unwrap();
    let meta = &start.job.metadata;
    assert_eq!(meta.labels.as_ref().unwrap()["app"], "backup");
    let annotations = meta.annotations.as_ref().unwrap();
    assert_eq!(annotations["a"], "b");
    assert_eq!(
        annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T18:10:00+09:00"
    );
    assert_eq!(meta.owner_references.as_ref().unwrap()[0].uid, "cron");
    let start = run(&cron(json!({}), json!({})), "", &[], "09:10:01").start.unwrap();
    assert_eq!(
        start.job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T09:10:00Z"
    );
}

#[test]
fn it_wakes_up_just_after_the_next_time() {
    let outcome = run(&cron(json!({}), json!({})), "", &[], "09:05:00");
    assert_eq!(outcome.again, Some(Duration::from_millis(300_100)));
    let never = run(&cron(json!({"schedule": "0 0 31 2 *"}), json!({})), "", &[], "09:05:00");
    assert_eq!((never.again, never.start), (None, None));
}

#[test]
fn active_jobs_are_followed_to_their_end() {
    let status = json!({"active": active(&["a", "b", "c", "d"]), "lastScheduleTime": at("09:50:00").to_string()});
    let jobs = "a@09:20:00=Complete b@09:30:00=Failed c@09:40:00 e@09:50:00";
    let outcome = run(&cron(json!({}), status), jobs, &["d"], "09:55:00");
    let left: Vec<_> =
        outcome.status.active.iter().flatten().filter_map(|job| job.name.clone()).collect();
    assert_eq!(left, ["c"]);
    assert_eq!(outcome.status.last_successful_time, Some(time(at("09:20:00"))));
    let told: Vec<_> = outcome.news.iter().map(|news| news.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "Saw completed job: a, condition: Complete",
            "Saw completed job: b, condition: Failed",
            "Saw a job that the controller did not create or forgot: e",
            "Active job went missing: d",
        ]
    );
}

#[test]
fn oldest_ended_jobs_beyond_the_limits_go() {
    let jobs = "d@09:40:00=Complete a@09:10:00=Complete c@09:30:00=Complete b@09:20:00=Failed f@09:25:00=Failed e@09:50:00";
    let names = |outcome: &Outcome| -> Vec<String> {
        outcome.delete.iter().map(|job| job.name_any()).collect()
    };
    let outcome = run(&cron(json!({}), json!({})), jobs, &[], "09:55:00");
    assert_eq!(names(&outcome), ["a", "b"]);
    let none =
        json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": null, "suspend": true});
    let outcome = run(&cron(none, json!({})), jobs, &[], "09:55:00");
    assert_eq!(names(&outcome), ["a", "c", "d"], "a suspended one cleans up, too");
}

#[test]
fn started_job_is_noted() {
    let mut status = CronJobStatus::default();
    started(&mut status, &job("x@09:10:00"), at("09:10:00"));
    assert_eq!(status.active.unwrap()[0].uid.as_deref(), Some("x"));
    assert_eq!(status.last_schedule_time, Some(time(at("09:10:00"))));
}
