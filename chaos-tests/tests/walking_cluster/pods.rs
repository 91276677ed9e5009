//! Containers: deployments, logs, exec, cp, port-forward, volumes, restarts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pintle_chaos::{Cluster, Result, Tool, wait_for};

use crate::control::expect;
use crate::{DEMO, Step};

pub(crate) const STEPS: &[Step] = &[
    ("create deployment --replicas=3 runs real containers", deployment),
    ("logs, exec, cp, describe, port-forward", inside),
    ("a pod's environment, volumes and token", volumes),
    ("a container killed by pid is restarted", killed_container),
    ("a deleted pod is replaced; scale", replaced),
    ("jobs run to completion; init containers come first", jobs),
];

fn deployment(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "deployment", "web", "--image", DEMO, "--replicas=3"])?;
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=180s"])?;
    let wide = kubectl.run(&["get", "pods", "-l", "app=web", "-o", "wide", "--no-headers"])?;
    let running = wide.lines().filter(|line| line.contains("Running") && line.contains("10.244."));
    if running.count() != 3 {
        return Err(wide);
    }
    Ok(())
}

/// Any running pod of the deployment.
pub(crate) fn any_pod(kubectl: &Tool, app: &str) -> Result<String> {
    let selector = format!("app={app}");
    let names = kubectl.run(&[
        "get", "pods", "-l", &selector, "--field-selector=status.phase=Running", "-o",
        "jsonpath={.items[?(@.metadata.deletionTimestamp==\"\")].metadata.name}{.items[*].metadata.name}",
    ])?;
    names.split_whitespace().next().map(str::to_owned).ok_or_else(|| format!("no pod of {app}"))
}

fn inside(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let pod = any_pod(&kubectl, "web")?;
    expect(&kubectl.run(&["logs", &pod])?, "serving")?;
    expect(&kubectl.run(&["logs", &pod, "--tail=1", "--timestamps"])?, "Z ")?;
    expect(&kubectl.run(&["exec", &pod, "--", "/demo", "print", "from inside"])?, "from inside")?;
    let exit = kubectl.run_failing(&["exec", &pod, "--", "/demo", "exit", "7"])?;
    expect(&exit, "exit code 7")?;
    let echoed = kubectl.run_with(&["exec", "-i", &pod, "--", "cat"], "through stdin")?;
    expect(&echoed, "through stdin")?;
    copy(cluster, &kubectl, &pod)?;
    let described = kubectl.run(&["describe", "pod", &pod])?;
    for words in ["Scheduled", "Started", "Status:", "Running"] {
        expect(&described, words)?;
    }
    port_forward(&kubectl, &pod)
}

fn copy(cluster: &Cluster, kubectl: &Tool, pod: &str) -> Result {
    let there = cluster.dir().join("copied").display().to_string();
    let back = cluster.dir().join("copied-back").display().to_string();
    let content: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(&there, &content).map_err(|error| error.to_string())?;
    let remote = format!("{pod}:/tmp/copied");
    kubectl.run(&["cp", &there, &remote])?;
    kubectl.run(&["cp", &remote, &back])?;
    let returned = std::fs::read_to_string(&back).map_err(|error| error.to_string())?;
    if returned == content { Ok(()) } else { Err("the copy differs".into()) }
}

fn port_forward(kubectl: &Tool, pod: &str) -> Result {
    let forward = kubectl.start(&["port-forward", pod, "18080:8080"])?;
    let result = wait_for("an answer through the forwarded port", Duration::from_secs(180), || {
        http_get("127.0.0.1:18080", "/").map_err(|error| error.to_string())
    });
    drop(forward);
    expect(&result?, " v1")
}

/// One GET; the whole answer.
fn http_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
}

const VOLUMES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: swordfish}
---
apiVersion: v1
kind: Pod
metadata: {name: volumes, labels: {app: volumes}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password, defaultMode: 256}}
  - {name: scratch, emptyDir: {}}
  containers:
  - name: main
    image: localhost/pintle/demo:v1
    env:
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: BOTH, value: $(GREETING)-$(WORD)}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /password, readOnly: true}
    - {name: scratch, mountPath: /scratch}
"#;

fn volumes(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run_with(&["apply", "-f", "-"], &VOLUMES.replace("localhost/pintle/demo:v1", DEMO))?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/volumes", "--timeout=180s"])?;
    let inside = |command: &str| kubectl.run(&["exec", "volumes", "--", "sh", "-c", command]);
    expect(&inside("echo $BOTH on $NODE")?, "hello-swordfish on node-")?;
    expect(&inside("cat /settings/greeting /password/word")?, "helloswordfish")?;
    expect(&inside("stat -L -c %a /password/word")?, "400")?;
    inside("echo kept > /scratch/file")?;
    expect(&inside("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace")?, "default")?;
    expect(&inside("cut -c1-2 /var/run/secrets/kubernetes.io/serviceaccount/token")?, "ey")?;
    expect(&inside("cat /etc/resolv.conf")?, "nameserver 10.96.0.10")?;
    kubectl.run(&["delete", "pod", "volumes"])?;
    kubectl.run(&["delete", "secret/password", "configmap/settings"])?;
    Ok(())
}

fn killed_container(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let pod = any_pod(&kubectl, "web")?;
    let id = kubectl.run(&[
        "get",
        "pod",
        &pod,
        "-o",
        "jsonpath={.status.containerStatuses[0].containerID}",
    ])?;
    let id = id.rsplit('/').next().unwrap_or_default().to_owned();
    let pid = container_pid(&id)?;
    cluster.kill(&[pid])?;
    wait_for("the container is restarted", Duration::from_secs(180), || {
        let status = kubectl.run(&[
            "get", "pod", &pod, "-o",
            "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}",
        ])?;
        if status == "1 true" { Ok(()) } else { Err(status) }
    })
}

/// The process whose control group is named after the container.
fn container_pid(id: &str) -> Result<u32> {
    let entries = std::fs::read_dir("/proc").map_err(|error| error.to_string())?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut of_container = pids.filter(|pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(id))
    });
    of_container.next().ok_or_else(|| format!("no process of container {id}"))
}

fn replaced(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let pod = any_pod(&kubectl, "web")?;
    kubectl.run(&["delete", "pod", &pod, "--wait=false"])?;
    kubectl.run(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=180s"])?;
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=180s"])?;
    kubectl.run(&["scale", "deployment/web", "--replicas=4"])?;
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=180s"])?;
    kubectl.run(&["scale", "deployment/web", "--replicas=3"])?;
    wait_for("three pods are left", Duration::from_secs(180), || {
        let names = kubectl.run(&["get", "pods", "-l", "app=web", "-o", "name"])?;
        if names.lines().count() == 3 { Ok(()) } else { Err(names) }
    })
}

const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 2
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      volumes: [{name: shared, emptyDir: {}}]
      initContainers:
      - name: first
        image: localhost/pintle/demo:v1
        command: [sh, -c, echo prepared > /shared/file]
        volumeMounts: [{name: shared, mountPath: /shared}]
      containers:
      - name: main
        image: localhost/pintle/demo:v1
        command: [sh, -c, cat /shared/file]
        volumeMounts: [{name: shared, mountPath: /shared}]
"#;

fn jobs(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run_with(&["apply", "-f", "-"], JOB)?;
    kubectl.run(&["wait", "--for=condition=Complete", "job/sum", "--timeout=180s"])?;
    expect(&kubectl.run(&["logs", "job/sum"])?, "prepared")?;
    kubectl.run(&["delete", "job", "sum"])?;
    Ok(())
}
