//! A disruption budget, as eviction meets it.

use serde_json::{Value, json};

use super::{Driver, holds, names};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn evict(driver: &Driver, pod: &str) -> u16 {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    driver.cluster.post(&format!("{PODS}/{pod}/eviction"), &eviction).await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn eviction_spends_a_budget_that_comes_back_with_the_next_pod() {
    let driver = Driver::start().await;
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    driver.create("/apis/apps/v1/namespaces/default/replicasets", set).await;
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    driver.create(budgets, budget).await;
    let path = format!("{budgets}/web");
    let counts = |allowed: i32| {
        move |budget: &Value| {
            let status = &budget["status"];
            status["observedGeneration"] == budget["metadata"]["generation"]
                && status["currentHealthy"] == 3
                && status["expectedPods"] == 3
                && status["disruptionsAllowed"] == allowed
        }
    };
    driver.until("three are healthy, none may go", &path, counts(0)).await;
    let pods = names(&driver.items(PODS).await);
    assert_eq!(evict(&driver, &pods[0]).await, 429);

    driver.merge(&path, json!({"spec": {"maxUnavailable": 1}})).await;
    let open = driver.until("one may go", &path, counts(1)).await;
    assert!(holds(&open, "DisruptionAllowed"));
    assert_eq!(evict(&driver, &pods[0]).await, 201);
    let settled = driver.until("the next pod has taken its place", &path, counts(1)).await;
    assert_eq!(settled["status"]["disruptedPods"], Value::Null);
    assert!(!names(&driver.items(PODS).await).contains(&pods[0]));
}
