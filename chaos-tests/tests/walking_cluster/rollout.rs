//! Change without interruption: rolling update, history, undo, drain, deletion policies.

use std::time::Duration;

use pintle_chaos::{Cluster, Result, wait_for};

use crate::control::expect;
use crate::network::ensure_client;
use crate::{DEMO, DEMO_NEXT, Step};

pub(crate) const STEPS: &[Step] = &[
    ("set image rolls over without a failed request", rolling_update),
    ("rollout history, undo, pause, restart", history),
    ("drain and uncordon", drain),
    ("delete: background, foreground, orphan", delete_policies),
];

fn shop() -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  replicas: 3
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      containers:
      - name: main
        image: {DEMO}
        readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: shop}}
spec: {{selector: {{app: shop}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

fn rolling_update(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    ensure_client(&kubectl)?;
    kubectl.run_with(&["apply", "-f", "-"], &shop())?;
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=180s"])?;
    wait_for("the shop answers", Duration::from_secs(180), || {
        kubectl
            .run(&["exec", "asker", "--", "/demo", "ask", "http", "shop:80"])
            .map_err(String::from)
    })?;
    // One failed request ends the asking with an error.
    let asking = kubectl.start(&[
        "exec",
        "asker",
        "--",
        "/demo",
        "ask",
        "http",
        "shop:80",
        "--until",
        "/tmp/enough",
        "--every-ms",
        "20",
        "--timeout-ms",
        "30000",
    ])?;
    asking.wait_for_words(" v1", Duration::from_secs(60))?;
    kubectl.run(&["set", "image", "deployment/shop", &format!("main={DEMO_NEXT}")])?;
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=180s"])?;
    asking.wait_for_words(" v2", Duration::from_secs(60))?;
    kubectl.run(&["exec", "asker", "--", "touch", "/tmp/enough"])?;
    let answers = asking.finish(Duration::from_secs(180))?;
    let (old, new) = (answers.matches(" v1").count(), answers.matches(" v2").count());
    let all = answers.lines().count();
    if old == 0 || new == 0 || old + new != all {
        return Err(format!("{old} answers of v1 and {new} of v2 make no rolling update of {all}"));
    }
    println!("        {all} requests meanwhile, none failed");
    Ok(())
}

fn history(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let history = kubectl.run(&["rollout", "history", "deployment/shop"])?;
    if history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() != 2 {
        return Err(history);
    }
    expect(&kubectl.run(&["rollout", "undo", "deployment/shop"])?, "rolled back")?;
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=180s"])?;
    let image =
        ["get", "deployment", "shop", "-o", "jsonpath={.spec.template.spec.containers[0].image}"];
    expect(&kubectl.run(&image)?, DEMO)?;
    kubectl.run(&["rollout", "pause", "deployment/shop"])?;
    kubectl.run(&["set", "env", "deployment/shop", "PAUSED=yes"])?;
    let replica_sets = || kubectl.run(&["get", "rs", "-l", "app=shop", "-o", "name"]);
    let before = replica_sets()?;
    kubectl.run(&["rollout", "resume", "deployment/shop"])?;
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=180s"])?;
    if replica_sets()?.lines().count() != before.lines().count() + 1 {
        return Err(format!("the pause did not hold: {before}"));
    }
    Ok(())
}

fn drain(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run(&[
        "drain",
        "node-2",
        "--ignore-daemonsets",
        "--force",
        "--delete-emptydir-data",
        "--timeout=180s",
    ])?;
    let left = kubectl.run(&[
        "get",
        "pods",
        "-A",
        "--field-selector=spec.nodeName=node-2",
        "-o",
        "name",
    ])?;
    if !left.trim().is_empty() {
        return Err(format!("still there: {left}"));
    }
    expect(&kubectl.run(&["get", "node", "node-2"])?, "SchedulingDisabled")?;
    kubectl.run(&["uncordon", "node-2"])?;
    kubectl.run(&["rollout", "status", "deployment/shop", "--timeout=180s"])?;
    Ok(())
}

fn delete_policies(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    for policy in ["background", "foreground"] {
        let name = format!("gone-{policy}");
        kubectl.run(&["create", "deployment", &name, "--image", DEMO])?;
        kubectl.run(&["rollout", "status", &format!("deployment/{name}"), "--timeout=180s"])?;
        kubectl.run(&["delete", "deployment", &name, &format!("--cascade={policy}")])?;
        let selector = format!("app={name}");
        wait_for(&format!("{policy} deletes dependents"), Duration::from_secs(180), || {
            let left = kubectl.run(&["get", "rs,pods", "-l", &selector, "-o", "name"])?;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })?;
    }
    kubectl.run(&["create", "deployment", "orphaned", "--image", DEMO])?;
    kubectl.run(&["rollout", "status", "deployment/orphaned", "--timeout=180s"])?;
    kubectl.run(&["delete", "deployment", "orphaned", "--cascade=orphan"])?;
    wait_for("the ReplicaSet has lost its owner", Duration::from_secs(180), || {
        let owners = kubectl.run(&[
            "get",
            "rs",
            "-l",
            "app=orphaned",
            "-o",
            "jsonpath={.items[*].metadata.ownerReferences}",
        ])?;
        if owners.trim().is_empty() { Ok(()) } else { Err(owners) }
    })?;
    expect(&kubectl.run(&["get", "rs,pods", "-l", "app=orphaned", "-o", "name"])?, "replicaset")?;
    kubectl.run(&["delete", "rs", "-l", "app=orphaned"])?;
    Ok(())
}
