//! Jobs and CronJobs from their creation to what they leave behind.

use serde_json::{Value, json};

use super::{Driver, condition, holds, names};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn job(name: &str, ends: &str, spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {
            "metadata": {"annotations": {"test/ends": ends}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
        }},
    });
    job["spec"].as_object_mut().expect("a spec").extend(spec.as_object().expect("fields").clone());
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_as_their_pods_do() {
    let driver = Driver::start().await;
    let indexed = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 2});
    driver.create(JOBS, job("sum", "Succeeded", indexed)).await;
    driver.create(JOBS, job("bad", "Failed", json!({"backoffLimit": 0}))).await;

    let sum =
        driver.until("sum completes", &format!("{JOBS}/sum"), |job| holds(job, "Complete")).await;
    let status = &sum["status"];
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&json!(3), &json!("0-2")));
    assert_eq!(
        (&status["active"], &status["ready"], &status["terminating"]),
        (&Value::Null, &json!(0), &json!(0))
    );
    assert!(holds(&sum, "SuccessCriteriaMet") && status["completionTime"].is_string(), "{status}");
    let pods = driver.items(&format!("{PODS}?labelSelector=job-name%3Dsum")).await;
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(pod["metadata"]["finalizers"], Value::Null, "it is counted and let go");
        let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        assert_eq!(pod["spec"]["hostname"], format!("sum-{}", index.as_str().expect("an index")));
    }

    let bad = driver.until("bad fails", &format!("{JOBS}/bad"), |job| holds(job, "Failed")).await;
    assert_eq!(bad["status"]["failed"], 1);
    let failed = condition(&bad, "Failed").expect("it failed");
    assert_eq!(failed["reason"], "BackoffLimitExceeded");

    if let Some(told) =
        driver.kubectl(&["wait", "--for=condition=Complete", "job/sum", "--timeout=30s"]).await
    {
        assert!(told.contains("condition met"), "{told}");
        let described =
            driver.kubectl(&["describe", "job", "sum"]).await.expect("kubectl is there");
        assert!(
            described.contains("3 Succeeded") && described.contains("Completed Indexes"),
            "{described}"
        );
    }
    driver.cluster.delete(&format!("{JOBS}/sum?propagationPolicy=Background")).await.expect(200);
    let gone = |list: &Value| list["items"].as_array().is_some_and(Vec::is_empty);
    driver
        .until("its pods go with it", &format!("{PODS}?labelSelector=job-name%3Dsum"), gone)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_job_waits_and_a_deleted_one_holds_no_pod() {
    let driver = Driver::start().await;
    let path = format!("{JOBS}/later");
    let mut later = job("later", "Succeeded", json!({"suspend": true}));
    later["spec"]["template"]["metadata"] = json!({});
    driver.create(JOBS, later).await;
    driver.until("it is suspended", &path, |job| holds(job, "Suspended")).await;
    assert_eq!(driver.items(PODS).await.len(), 0);
    driver.merge(&path, json!({"spec": {"suspend": false}})).await;
    let running = driver.until("it runs", &path, |job| job["status"]["ready"] == 1).await;
    assert_eq!(condition(&running, "Suspended").expect("it was")["status"], "False");

    // Without the job nobody counts its pod, which the finalizer would hold for ever.
    driver.cluster.delete(&format!("{path}?propagationPolicy=Background")).await.expect(200);
    driver
        .until("the pod goes", PODS, |list| list["items"].as_array().is_some_and(Vec::is_empty))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cron_job_starts_jobs_under_the_name_of_their_minute() {
    let driver = Driver::start().await;
    let template = job("", "Succeeded", json!({}));
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {"schedule": "@every 2s", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 1,
            "jobTemplate": {"spec": template["spec"]}},
    });
    driver.create("/apis/batch/v1/namespaces/default/cronjobs", cron).await;
    let path = "/apis/batch/v1/namespaces/default/cronjobs/tick";
    let ticked = driver
        .until("it has succeeded once", path, |cron| {
            cron["status"]["lastSuccessfulTime"].is_string()
        })
        .await;
    assert!(ticked["status"]["lastScheduleTime"].is_string(), "{ticked}");
    let jobs = driver.items(JOBS).await;
    let minute =
        names(&jobs)[0].strip_prefix("tick-").expect("its name").parse::<i64>().expect("a minute");
    assert!((minute - k8s_openapi::jiff::Timestamp::now().as_second() / 60).abs() <= 2);
    assert_eq!(jobs[0]["metadata"]["ownerReferences"][0]["name"], "tick");
}
