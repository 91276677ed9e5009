//! Deaths: a node's agent, the leader of everything, everybody.

use std::time::{Duration, Instant};

use pintle_chaos::{Cluster, Result, wait_for};

use crate::control::expect;
use crate::{DEMO, Step};

pub(crate) const STEPS: &[Step] = &[
    ("SIGKILL of the leader: nothing acknowledged is lost, work goes on", leader_killed),
    ("SIGKILL of all three members: everything is there", all_killed),
    ("SIGKILL of an agent: its pod runs on another node", agent_killed),
];

fn leader_killed(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let containers =
        ["get", "pods", "-l", "app=web", "-o", "jsonpath={..containerID} {..restartCount}"];
    let before = kubectl.run(&containers)?;
    let leader = cluster.leader()?;
    let mut acknowledged = Vec::new();
    let create = |name: &str| {
        kubectl.run(&["create", "configmap", name, "--from-literal=a=1", "--request-timeout=5s"])
    };
    for i in 0..5 {
        let name = format!("before-{i}");
        create(&name)?;
        acknowledged.push(name);
    }
    let killed_at = Instant::now();
    cluster.kill(&[leader.pid])?;
    let mut first_write = None;
    let mut attempt = 0;
    while killed_at.elapsed() < Duration::from_secs(10) && acknowledged.len() < 15 {
        let name = format!("after-{attempt}");
        attempt += 1;
        if create(&name).is_ok() {
            first_write.get_or_insert(killed_at.elapsed());
            acknowledged.push(name);
        }
    }
    let first_write = first_write.ok_or("no write succeeded within 10 s of the leader's death")?;
    println!("        first acknowledged write after {} ms", first_write.as_millis());
    kubectl.run(&["create", "deployment", "after-failover", "--image", DEMO])?;
    let created_at = Instant::now();
    wait_for("a new deployment is scheduled", Duration::from_secs(180), || {
        let node = kubectl.run(&[
            "get",
            "pods",
            "-l",
            "app=after-failover",
            "-o",
            "jsonpath={..nodeName}",
        ])?;
        expect(&node, "node-")
    })?;
    println!(
        "        a new deployment was scheduled after {} ms",
        created_at.elapsed().as_millis()
    );
    cluster.wait_for_members(&[leader.pid])?;
    wait_for("the killed member has caught up", Duration::from_secs(180), || {
        let text = cluster.pintle(&["status", "-o", "json"])?;
        let status: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let caught_up =
            members.iter().filter(|member| member["lag"].as_u64().is_some_and(|lag| lag < 100));
        if caught_up.count() == 3 { Ok(()) } else { Err(text) }
    })?;
    let present = kubectl.run(&["get", "configmaps", "-o", "name"])?;
    for name in &acknowledged {
        expect(&present, &format!("configmap/{name}\n"))?;
    }
    let after = kubectl.run(&containers)?;
    if before != after {
        return Err(format!("the containers noticed: {before} became {after}"));
    }
    kubectl.run(&["delete", "deployment", "after-failover"])?;
    let names: Vec<&str> = acknowledged.iter().map(String::as_str).collect();
    kubectl.run(&[&["delete", "configmap"], names.as_slice()].concat())?;
    Ok(())
}

fn all_killed(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "configmap", "survivor", "--from-literal=a=1"])?;
    let names =
        ["get", "deployments,services,configmaps,secrets,serviceaccounts", "-A", "-o", "name"];
    let before = kubectl.run(&names)?;
    let pids: Vec<u32> = cluster.files()?.members.iter().map(|member| member.pid).collect();
    cluster.kill(&pids)?;
    cluster.wait_for_members(&pids)?;
    wait_for("everything is there again", Duration::from_secs(180), || {
        let after = kubectl.run(&names)?;
        if after == before { Ok(()) } else { Err(format!("{before}\nbecame\n{after}")) }
    })?;
    kubectl.run(&["delete", "configmap", "survivor"])?;
    Ok(())
}

fn agent_killed(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let manifest = format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: refugee}}
spec:
  selector: {{matchLabels: {{app: refugee}}}}
  template:
    metadata: {{labels: {{app: refugee}}}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}
      containers: [{{name: main, image: {DEMO}}}]
"#
    );
    kubectl.run_with(&["apply", "-f", "-"], &manifest)?;
    kubectl.run(&["rollout", "status", "deployment/refugee", "--timeout=180s"])?;
    let nodes = || {
        kubectl.run(&[
            "get",
            "pods",
            "-l",
            "app=refugee",
            "--field-selector=status.phase=Running",
            "-o",
            "jsonpath={..nodeName}",
        ])
    };
    let home = nodes()?;
    let agent = cluster.files()?.agents.into_iter().find(|agent| agent.name == home.trim());
    let agent = agent.ok_or_else(|| format!("no agent for {home}"))?;
    cluster.kill(&[agent.pid])?;
    wait_for("the pod runs on another node", Duration::from_secs(180), || {
        let now = nodes()?;
        let other = now.split_whitespace().any(|node| node != agent.name);
        if other { Ok(()) } else { Err(now) }
    })?;
    kubectl.run(&["delete", "deployment", "refugee"])?;
    Ok(())
}
