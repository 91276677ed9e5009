//! The cluster itself: start, status, the store behind it, access.

use std::time::Duration;

use pintle_chaos::{Cluster, Result, wait_for};

use crate::{BASE_PORT, Step};

pub(crate) const STEPS: &[Step] = &[
    ("status shows a leader, three members and nothing wrong", status),
    ("etcdctl sees the objects in Kubernetes' layout", etcdctl_keys),
    ("etcdctl does put, get, txn, watch, lease, compaction", etcdctl_calls),
    ("auth: can-i, tokens, namespaces of the context", access),
];

/// Start of everything; the other steps need it.
pub(crate) fn up(cluster: &Cluster) -> Result {
    let output = cluster.up(&["--base-port", BASE_PORT, "--nodes", "2"])?;
    if !output.contains("cluster is ready") {
        return Err(output);
    }
    let agents = cluster.files()?.agents;
    match agents.iter().find(|agent| agent.runtime != "containerd") {
        Some(agent) => Err(format!("{} does not run on containerd", agent.name)),
        None => Ok(()),
    }
}

/// The last lines of every log, for the person who reads why CI failed.
pub(crate) fn print_logs(cluster: &Cluster) {
    const LINES: usize = 40;
    let Ok(entries) = std::fs::read_dir(cluster.dir().join("logs")) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("--- {}", path.display());
        lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| println!("{line}"));
    }
}

fn status(cluster: &Cluster) -> Result {
    wait_for("a healthy status", Duration::from_secs(180), || {
        let text = cluster.pintle(&["status", "-o", "json"])?;
        let status: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let members = status["members"].as_array().map_or(0, Vec::len);
        let problems = status["problems"].as_array().map_or(1, Vec::len);
        if members == 3 && problems == 0 { Ok(()) } else { Err(text) }
    })
}

fn etcdctl_keys(cluster: &Cluster) -> Result {
    let files = cluster.files()?;
    let etcdctl = cluster.etcdctl(&[&files.members[0]])?;
    let keys = etcdctl.run(&["get", "/registry", "--prefix", "--keys-only"])?;
    for key in [
        "/registry/namespaces/default",
        "/registry/minions/node-1",
        "/registry/services/specs/default/kubernetes",
        "/registry/clusterroles/cluster-admin",
        "/registry/leases/kube-system/kube-scheduler",
        "/registry/serviceaccounts/default/default",
    ] {
        if !keys.lines().any(|line| line == key) {
            return Err(format!("{key} is not among the keys:\n{keys}"));
        }
    }
    Ok(())
}

fn etcdctl_calls(cluster: &Cluster) -> Result {
    let files = cluster.files()?;
    let all: Vec<_> = files.members.iter().collect();
    let first = cluster.etcdctl(&all[..1])?;
    let last = cluster.etcdctl(&all[2..])?;
    let watch = last.start(&["watch", "/e2e/a", "--rev", "1"])?;
    expect(&first.run(&["put", "/e2e/a", "1"])?, "OK")?;
    expect(&last.run(&["get", "/e2e/a", "--print-value-only"])?, "1")?;
    let txn = "value(\"/e2e/a\") = \"1\"\n\nput /e2e/a 2\n\nget /e2e/a\n\n";
    expect(&first.run_with(&["txn"], txn)?, "SUCCESS")?;
    let lease = first.run(&["lease", "grant", "60"])?;
    let id = lease.split_whitespace().nth(1).ok_or("no lease id")?.to_owned();
    first.run(&["put", "/e2e/leased", "x", "--lease", &id])?;
    expect(&last.run(&["lease", "timetolive", &id, "--keys"])?, "/e2e/leased")?;
    expect(&first.run(&["lease", "revoke", &id])?, "revoked")?;
    if !last.run(&["get", "/e2e/leased"])?.is_empty() {
        return Err("the key outlived its lease".into());
    }
    let revision = first.run(&["get", "/e2e/a", "-w", "json"])?;
    let revision: serde_json::Value =
        serde_json::from_str(&revision).map_err(|error| error.to_string())?;
    let revision = revision["header"]["revision"].to_string();
    expect(&first.run(&["compaction", &revision])?, "compacted revision")?;
    let old = last.run_failing(&["get", "/e2e/a", "--rev", "2"])?;
    expect(&old, "required revision has been compacted")?;
    expect(&first.run(&["member", "list"])?, "started")?;
    let every = cluster.etcdctl(&all)?;
    expect(&every.run(&["endpoint", "status", "-w", "table"])?, "true")?;
    let health = every.run(&["endpoint", "health", "-w", "json"])?;
    if health.matches("\"health\":true").count() != 3 {
        return Err(health);
    }
    watch.wait_for_words("/e2e/a\n2", Duration::from_secs(60))
}

fn access(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    expect(&kubectl.run(&["auth", "can-i", "create", "deployments"])?, "yes")?;
    let denied =
        ["auth", "can-i", "create", "deployments", "--as", "system:serviceaccount:default:default"];
    expect(&kubectl.run_failing(&denied)?, "no")?;
    kubectl.run(&[
        "create",
        "rolebinding",
        "e2e-view",
        "--clusterrole=view",
        "--serviceaccount=default:default",
    ])?;
    let token = kubectl.run(&["create", "token", "default"])?;
    let files = cluster.files()?;
    let ca = files.ca.display().to_string();
    let stranger =
        pintle_chaos::Tool::new("kubectl").with_env("KUBECONFIG", "/dev/null").with_prefix(&[
            "--server",
            &files.front,
            "--certificate-authority",
            &ca,
            "--token",
            token.trim(),
        ]);
    wait_for("the role is in force", Duration::from_secs(180), || {
        stranger.run(&["get", "pods"]).map_err(String::from)
    })?;
    expect(&stranger.run_failing(&["get", "secrets"])?, "Forbidden")?;
    expect(&stranger.run_failing(&["delete", "namespace", "default"])?, "forbidden")?;
    kubectl.run(&["create", "namespace", "elsewhere"])?;
    kubectl.run(&["config", "set-context", "--current", "--namespace=elsewhere"])?;
    let here = kubectl.run(&["get", "serviceaccounts", "-o", "jsonpath={..namespace}"]);
    kubectl.run(&["config", "set-context", "--current", "--namespace=default"])?;
    let empty = here?;
    if empty.split_whitespace().any(|namespace| namespace != "elsewhere") {
        return Err(format!("the context's namespace is not used: {empty}"));
    }
    kubectl.run(&["delete", "namespace", "elsewhere"])?;
    Ok(())
}

/// The text must contain the words.
pub(crate) fn expect(text: &str, words: &str) -> Result {
    if text.contains(words) { Ok(()) } else { Err(format!("{words:?} is not in: {text}")) }
}
