//! Services: addresses, names, TCP and UDP, node ports, readiness.

use std::time::Duration;

use pintle_chaos::{Cluster, Result, Tool, wait_for};

use crate::control::expect;
use crate::{DEMO, Step};

pub(crate) const STEPS: &[Step] = &[
    ("expose; a pod reaches the service by DNS name over HTTP, TCP and UDP", service),
    ("endpoints follow readiness", readiness),
    ("a pod reaches the API through default/kubernetes", api_from_pod),
    ("headless services and pod names", headless),
];

/// A pod to ask from.
const CLIENT: &str = "asker";

fn ask(kubectl: &Tool, protocol: &str, address: &str, text: &str) -> Result<String> {
    Ok(kubectl.run(&["exec", CLIENT, "--", "/demo", "ask", protocol, address, text])?)
}

/// Makes the pod that asks, once.
pub(crate) fn ensure_client(kubectl: &Tool) -> Result {
    if kubectl.run(&["get", "pod", CLIENT]).is_err() {
        kubectl.run(&["run", CLIENT, "--image", DEMO, "--restart=Never"])?;
    }
    kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{CLIENT}"), "--timeout=180s"])?;
    Ok(())
}

fn service(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    ensure_client(&kubectl)?;
    let ports = r#"{"spec":{"type":"NodePort","ports":[
        {"name":"http","port":80,"targetPort":8080,"nodePort":30480},
        {"name":"line","port":9000,"targetPort":9000},
        {"name":"datagram","port":9001,"targetPort":9001,"protocol":"UDP"}]}}"#;
    kubectl.run(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?;
    kubectl.run(&["patch", "service", "web", "--type=merge", "-p", ports])?;
    let eventually = |protocol: &str, address: &str, text: &str, words: &str| {
        wait_for(&format!("{protocol} {address}"), Duration::from_secs(180), || {
            ask(&kubectl, protocol, address, text).and_then(|answer| expect(&answer, words))
        })
    };
    eventually("http", "web:80", "/", " v1")?;
    eventually("http", "web.default.svc.cluster.local:80", "/", " v1")?;
    eventually("tcp", "web:9000", "hello", "tcp hello")?;
    eventually("udp", "web:9001", "hello", "udp hello")?;
    // From the host: the node's port, on loopback.
    let demo = std::env::var("PINTLE").unwrap_or_default() + "-demo";
    let host = Tool::new(demo);
    wait_for("the node port", Duration::from_secs(180), || {
        let answer = host.run(&["ask", "http", "127.0.0.1:30480", "/"])?;
        expect(&answer, " v1")
    })
}

fn readiness(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let manifest = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: moody, labels: {{app: moody}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {DEMO}
    readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: moody}}
spec: {{selector: {{app: moody}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    );
    kubectl.run_with(&["apply", "-f", "-"], &manifest)?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/moody", "--timeout=180s"])?;
    let endpoints = || {
        Ok::<_, String>(kubectl.run(&[
            "get",
            "endpoints",
            "moody",
            "-o",
            "jsonpath={.subsets[*].addresses[*].ip}",
        ])?)
    };
    wait_for("an endpoint", Duration::from_secs(180), || {
        endpoints().and_then(|ips| expect(&ips, "10.244."))
    })?;
    kubectl.run(&[
        "exec",
        "moody",
        "--",
        "wget",
        "-q",
        "-O-",
        "--post-data=x",
        "http://127.0.0.1:8080/ready/off",
    ])?;
    wait_for("no endpoint", Duration::from_secs(180), || {
        let ips = endpoints()?;
        if ips.is_empty() { Ok(()) } else { Err(ips) }
    })?;
    wait_for("the service refuses", Duration::from_secs(180), || {
        match ask(&kubectl, "http", "moody:80", "/") {
            Ok(answer) => Err(answer),
            Err(error) => expect(&error, "refused"),
        }
    })?;
    kubectl.run(&["delete", "pod/moody", "service/moody"])?;
    Ok(())
}

fn api_from_pod(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    // No TLS in the demo's client: the handshake's first answer byte shows that the way is open.
    let command =
        "nc -w 3 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo open";
    expect(&kubectl.run(&["exec", CLIENT, "--", "sh", "-c", command])?, "open")
}

fn headless(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    let manifest = format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: peers}}
spec: {{clusterIP: None, selector: {{app: peers}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: peers}}
spec:
  serviceName: peers
  replicas: 2
  selector: {{matchLabels: {{app: peers}}}}
  template:
    metadata: {{labels: {{app: peers}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: {DEMO}, args: [/demo, serve, --drain-ms=0]}}]
"#
    );
    kubectl.run_with(&["apply", "-f", "-"], &manifest)?;
    kubectl.run(&["rollout", "status", "statefulset/peers", "--timeout=180s"])?;
    wait_for("a pod by its name", Duration::from_secs(180), || {
        let answer = ask(&kubectl, "http", "peers-1.peers:8080", "/")?;
        expect(&answer, "peers-1")
    })?;
    kubectl.run(&["delete", "statefulset/peers", "service/peers"])?;
    Ok(())
}
