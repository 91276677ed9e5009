//! A whole node agent on a real containerd, against a stub of an apiserver. Needs root, containerd, runc,
//! the CNI plugins and busybox; without them it says so and does nothing.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pintle_nodeagent::config::Paths;
use pintle_nodeagent::images::{self, File, Image};
use pintle_nodeagent::{Config, RuntimeKind, TlsFiles, containerd, stop_containerd};
use pintle_testing::free_address;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

mod kubelet;
mod stub;

use kubelet::Kubelet;
use stub::Stub;

const IMAGE: &str = "localhost/pintle-test/busybox:v1";
/// Seconds that a probe may take: on a busy machine the start of a process can take more than the
/// default of one, and a probe that times out restarts what the test works on.
const PATIENCE: u64 = 30;

/// What is missing for this test.
fn missing() -> Option<&'static str> {
    let exists = |path: &str| Path::new(path).exists();
    match () {
        () if !nix::unistd::geteuid().is_root() => Some("root"),
        () if !exists("/usr/bin/containerd") => Some("containerd"),
        () if !exists("/usr/lib/cni/bridge") => Some("the CNI plugins"),
        () if !exists("/bin/busybox") => Some("busybox"),
        () => None,
    }
}

struct World {
    stub: Stub,
    kubelet: Kubelet,
    config: Config,
    dir: tempfile::TempDir,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (stub, url) = Stub::start().await;
        let listen = free_address();
        let kubelet = Kubelet::new(dir.path(), listen);
        let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let config = Config {
            node_name: "node-a".to_owned(),
            client,
            api_servers: Vec::new(),
            data_dir: dir.path().join("node"),
            node_ip: "127.0.0.1".parse().unwrap(),
            listen,
            tls: TlsFiles {
                cert: dir.path().join("server.crt"),
                key: dir.path().join("server.key"),
            },
            client_ca: dir.path().join("ca.crt"),
            runtime: RuntimeKind::Containerd,
            cluster_dns: "10.96.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            proxy: false,
        };
        Self { stub, kubelet, config, dir, agent: None }
    }

    async fn import_images(&self) {
        let paths = Paths::new(&self.config.data_dir);
        std::fs::create_dir_all(&self.config.data_dir).unwrap();
        containerd::ensure_running(&paths).await.unwrap();
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let applets = [
            "sh", "sleep", "cat", "echo", "true", "false", "tar", "id", "httpd", "ls", "env",
            "hostname", "stty", "tty", "mkdir", "nc",
        ];
        for (name, command) in
            [(images::PAUSE_IMAGE, vec!["/bin/sleep", "infinity"]), (IMAGE, vec!["/bin/sh"])]
        {
            let mut files = vec![
                File::folder("bin", 0o755),
                File::program("bin/busybox", &busybox),
                File::folder("tmp", 0o1777),
            ];
            files.extend(applets.iter().map(|a| File::link(&format!("bin/{a}"), "/bin/busybox")));
            let image = Image {
                name: name.to_owned(),
                files,
                entrypoint: Vec::new(),
                command: command.into_iter().map(str::to_owned).collect(),
                env: vec!["PATH=/bin".to_owned()],
            };
            let archive = self.dir.path().join("image.tar");
            image.write(&archive).unwrap();
            images::import(&self.config.data_dir, &archive).await.unwrap();
        }
    }

    fn start_agent(&mut self) {
        let shutdown = CancellationToken::new();
        let (config, token) = (self.config.clone(), shutdown.clone());
        let task = tokio::spawn(async move { pintle_nodeagent::run(config, token).await.unwrap() });
        self.agent = Some((shutdown, task));
    }

    async fn stop_agent(&mut self) {
        let (shutdown, task) = self.agent.take().unwrap();
        shutdown.cancel();
        task.await.unwrap();
    }

    fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("node-a");
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = json!(1);
        }
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": name } } });
        self.stub.put(&path(name), pod);
    }

    async fn wait(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let limit = Instant::now() + Duration::from_secs(180);
        loop {
            let pod = self.stub.get(&path(name)).unwrap_or(Value::Null);
            if condition(&pod) {
                return pod;
            }
            assert!(
                Instant::now() < limit,
                "{name}: {what}: {:#}\n{}",
                pod["status"],
                self.events()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn events(&self) -> String {
        let events = self.stub.list("/api/v1/events");
        events
            .iter()
            .map(|e| format!("{} {} {}\n", e["involvedObject"]["name"], e["reason"], e["message"]))
            .collect()
    }

    fn delete(&self, name: &str, grace: i64) {
        self.stub.change(&path(name), |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    async fn gone(&self, name: &str) {
        self.wait(name, "is gone", Value::is_null).await;
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn shell(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script] })
}

fn ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn container(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_runs_pods() {
    if let Some(missing) = missing() {
        eprintln!("skipped: this test needs {missing}");
        return;
    }
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .init();
    }
    let mut world = World::new().await;
    world.import_images().await;
    let data_dir = world.config.data_dir.clone();
    world.start_agent();
    node_becomes_ready(&world).await;
    let world = Arc::new(parking_lot::Mutex::new(Some(world)));
    let inner = world.clone();
    // containerd is taken down whatever happens.
    let outcome = tokio::spawn(async move {
        let mut world = inner.lock().take().unwrap();
        a_pod_serves_and_streams(&mut world).await;
        a_pod_is_configured(&world).await;
        containers_restart(&world).await;
        pods_end(&world).await;
        probes_decide(&world).await;
        containerd_comes_back(&world).await;
        an_agent_adopts_what_runs(&mut world).await;
        world.stop_agent().await;
        world
    })
    .await;
    let containers_left = stop_containerd(&data_dir).await;
    let world = outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    containers_left.unwrap();
    assert!(!containerd::socket_path(&data_dir).exists());
    drop(world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_is_many_hollow_nodes() {
    let mut world = World::new().await;
    world.config.runtime = RuntimeKind::Hollow { count: 3 };
    world.start_agent();
    let limit = Instant::now() + Duration::from_secs(120);
    for index in 0..3 {
        let node = format!("/api/v1/nodes/node-a-{index}");
        while world.stub.get(&node).is_none() {
            assert!(Instant::now() < limit, "{node} is not registered");
            sleep(Duration::from_millis(20)).await;
        }
        let range = format!("10.213.{index}.0/24");
        world.stub.change(&node, |node| node["spec"]["podCIDR"] = json!(range));
        while !ready(&world.stub.get(&node).unwrap()) {
            assert!(Instant::now() < limit, "{node} is not ready");
            sleep(Duration::from_millis(20)).await;
        }
    }
    for index in 0..6 {
        let name = format!("hollow-{index}");
        world.create(&name, json!({ "containers": [shell("main", "true")] }));
        world.stub.change(&path(&name), |pod| {
            pod["spec"]["nodeName"] = json!(format!("node-a-{}", index % 3));
        });
    }
    for index in 0..6 {
        let name = format!("hollow-{index}");
        let pod = world.wait(&name, "is ready", ready).await;
        assert!(pod["status"]["podIP"].as_str().unwrap().starts_with("10.213."));
        let (code, _) =
            world.kubelet.get(&format!("/exec/default/{name}/main?output=1&command=true")).await;
        assert_eq!(code, 501);
        world.delete(&name, 30);
        world.gone(&name).await;
    }
    world.stop_agent().await;
}

async fn node_becomes_ready(world: &World) {
    let limit = Instant::now() + Duration::from_secs(120);
    let node = "/api/v1/nodes/node-a";
    while world.stub.get(node).is_none() {
        assert!(Instant::now() < limit, "the node is not registered");
        sleep(Duration::from_millis(20)).await;
    }
    world.stub.change(node, |node| node["spec"]["podCIDR"] = json!("10.213.7.0/24"));
    loop {
        let object = world.stub.get(node).unwrap();
        let lease = world.stub.list("/apis/coordination.k8s.io/v1/leases");
        if ready(&object) && !lease.is_empty() {
            assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "node-a");
            assert_eq!(
                object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"],
                world.config.listen.port()
            );
            return;
        }
        assert!(
            Instant::now() < limit,
            "the node is not ready: {:#}",
            object["status"]["conditions"]
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Running, logs, exec with input and exit code, port forwarding, killing by pid, deletion.
async fn a_pod_serves_and_streams(world: &mut World) {
    let script = "echo hello; sleep 0.2; echo oops >&2; mkdir -p /tmp/www; echo served > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
    let mut web = shell("web", script);
    web["readinessProbe"] = json!({ "httpGet": { "path": "/index.html", "port": 8080 }, "periodSeconds": 1, "timeoutSeconds": PATIENCE });
    world.create("serve-1", json!({ "containers": [web] }));
    let pod = world.wait("serve-1", "is ready", ready).await;
    assert!(pod["status"]["podIP"].as_str().unwrap().starts_with("10.213.7."));
    assert_eq!(pod["status"]["phase"], "Running");

    let logs = |query: &'static str| {
        world.kubelet.get(format!("/containerLogs/default/serve-1/web{query}"))
    };
    assert_eq!(logs("").await, (200, "hello\noops\n".to_owned()));
    assert_eq!(logs("?tailLines=1").await.1, "oops\n");
    assert!(logs("?timestamps=true&limitBytes=5").await.1.starts_with("20"));

    let exec = "/exec/default/serve-1/web?output=1&error=1&command=sh&command=-c&command=";
    let run = world
        .kubelet
        .exec(&format!("{exec}echo%20out%3B%20echo%20err%20%3E%262%3B%20exit%207"), b"")
        .await;
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(run.status["details"]["causes"][0]["message"], "7", "{}", run.status);
    // The end of the input reaches the command: `cat` ends.
    let big = vec![b'x'; 300_000];
    let run =
        world.kubelet.exec(&format!("{exec}cat%20%7C%20md5sum%20%7C%7C%20cat&input=1"), &big).await;
    assert_eq!(run.status["status"], "Success", "{run:?}");
    let run = world.kubelet.exec(&format!("{exec}cat&input=1"), &big).await;
    assert_eq!(run.stdout.len(), big.len());

    // A terminal, and its size.
    let run = world.kubelet.exec(&format!("{exec}tty%20%7C%7C%20true&tty=1&input=1"), b"").await;
    assert!(run.stdout.contains("/dev/pts/"), "{run:?}");
    let answer = world
        .kubelet
        .forward("/portForward/default/serve-1", 8080, b"GET /index.html HTTP/1.0\r\n\r\n")
        .await;
    assert!(answer.ends_with("served\n"), "{answer}");

    let id = container(&pod, 0)["containerID"].as_str().unwrap().to_owned();
    let run = world.kubelet.exec(&format!("{exec}kill%20-9%201%3B%20true"), b"").await;
    // Process 1 ignores signals from inside: the runtime's process is killed from outside.
    drop(run);
    let pid = pid_of(&world.config.data_dir, &id).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let pod = world.wait("serve-1", "restarts", |pod| container(pod, 0)["restartCount"] == 1).await;
    assert_eq!(container(&pod, 0)["lastState"]["terminated"]["exitCode"], 137);
    world.wait("serve-1", "is ready again", ready).await;
    assert_eq!(logs("?previous=true").await.1, "hello\noops\n");

    world.delete("serve-1", 1);
    world.gone("serve-1").await;
    let left = std::fs::read_dir(world.config.data_dir.join("pods")).unwrap().count();
    assert_eq!(left, 0);
}

async fn pid_of(data_dir: &Path, container_id: &str) -> i32 {
    use pintle_nodeagent::runtime::Runtime;
    let runtime = pintle_nodeagent::runtime::cri::Cri::new(&containerd::socket_path(data_dir));
    let id = container_id.strip_prefix("containerd://").unwrap();
    runtime.container(id).await.unwrap().pid.unwrap()
}

/// Volumes, environment, names, users.
async fn a_pod_is_configured(world: &World) {
    let base = "/api/v1/namespaces/default";
    world.stub.put(
        &format!("{base}/configmaps/map-1"),
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "map-1", "namespace": "default" }, "data": { "key": "first" } }),
    );
    world.stub.put(&format!("{base}/secrets/secret-1"), json!({ "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "secret-1", "namespace": "default" }, "data": { "pass": "aHVzaA==" } }));
    let script = "set -e; id -u; id -G; hostname; cat /map/key; echo; cat /secret/pass; echo; cat /token/t; echo; \
        cat /down/labels; echo; echo $POD_NAME $MAP_KEY $LIMIT; echo kept > /data/f; cat /etc/resolv.conf; cat /etc/hosts; \
        echo last words > /dev/termination-log";
    let mut main = shell("main", script);
    main["volumeMounts"] = json!([
        { "name": "map", "mountPath": "/map" }, { "name": "secret", "mountPath": "/secret" },
        { "name": "token", "mountPath": "/token" }, { "name": "down", "mountPath": "/down" },
        { "name": "data", "mountPath": "/data", "subPath": "below" }]);
    main["env"] = json!([
        { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "MAP_KEY", "valueFrom": { "configMapKeyRef": { "name": "map-1", "key": "key" } } },
        { "name": "LIMIT", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } }]);
    main["resources"] = json!({ "limits": { "memory": "64Mi", "cpu": "500m" } });
    main["securityContext"] =
        json!({ "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
    world.create("config-1", json!({
        "restartPolicy": "Never", "serviceAccountName": "default", "containers": [main],
        "securityContext": { "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000 },
        "hostAliases": [{ "ip": "192.0.2.77", "hostnames": ["alias"] }],
        "volumes": [
            { "name": "map", "configMap": { "name": "map-1" } },
            { "name": "secret", "secret": { "secretName": "secret-1", "defaultMode": 256 } },
            { "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } },
            { "name": "down", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
            { "name": "data", "emptyDir": { "medium": "Memory" } }],
    }));
    let pod = world
        .wait("config-1", "has ended", |pod| {
            pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
        })
        .await;
    let (_, text) = world.kubelet.get("/containerLogs/default/config-1/main").await;
    let expected = [
        "1000\n1000 2000\nconfig-1\nfirst\nhush\na-token\napp=\"config-1\"\nconfig-1 first 64\n",
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "192.0.2.77\talias",
    ];
    for part in expected {
        assert!(text.contains(part), "{part:?} in:\n{text}\n{:#}", pod["status"]);
    }
    assert_eq!(pod["status"]["phase"], "Succeeded");
    let ended = &container(&pod, 0)["state"]["terminated"];
    assert_eq!(
        (ended["exitCode"].as_i64(), ended["reason"].as_str()),
        (Some(0), Some("Completed"))
    );
    assert_eq!(ended["message"], "last words\n");
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    world.delete("config-1", 0);
    world.gone("config-1").await;
}

/// Init containers, sidecars, crash loops, missing images.
async fn containers_restart(world: &World) {
    let mut sidecar =
        shell("side", "trap 'exit 0' TERM; echo up > /s/up; while true; do sleep 0.1; done");
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({ "exec": { "command": ["cat", "/s/up"] }, "periodSeconds": 1, "timeoutSeconds": PATIENCE });
    let mut init = shell("init", "cat /s/up && echo done > /s/init");
    let mut main = shell("main", "cat /s/init");
    for c in [&mut sidecar, &mut init, &mut main] {
        c["volumeMounts"] = json!([{ "name": "s", "mountPath": "/s" }]);
    }
    world.create(
        "order-1",
        json!({ "restartPolicy": "Never", "initContainers": [sidecar, init], "containers": [main],
        "volumes": [{ "name": "s", "emptyDir": {} }] }),
    );
    world.create("crash-1", json!({ "containers": [shell("main", "exit 3")] }));
    let mut absent = shell("main", "true");
    absent["image"] = json!("localhost/pintle-test/absent:v1");
    world.create("absent-1", json!({ "containers": [absent] }));

    let pod = world.wait("order-1", "succeeds", |pod| pod["status"]["phase"] == "Succeeded").await;
    let inits = &pod["status"]["initContainerStatuses"];
    assert_eq!(inits[1]["state"]["terminated"]["exitCode"], 0);
    assert!(inits[0]["state"]["terminated"].is_object(), "{inits:#}");

    let waiting = |reason: &'static str| {
        move |pod: &Value| container(pod, 0)["state"]["waiting"]["reason"] == reason
    };
    let pod = world.wait("crash-1", "waits", waiting("CrashLoopBackOff")).await;
    assert_eq!(container(&pod, 0)["restartCount"], 1);
    assert_eq!(container(&pod, 0)["lastState"]["terminated"]["exitCode"], 3);
    world.wait("absent-1", "waits", waiting("ErrImageNeverPull")).await;
    for name in ["order-1", "crash-1", "absent-1"] {
        world.delete(name, 1);
        world.gone(name).await;
    }
}

/// preStop, the grace period, forced deletion, deadlines.
async fn pods_end(world: &World) {
    let mut polite =
        shell("main", "trap 'cat /tmp/stop; exit 5' TERM; while true; do sleep 0.1; done");
    polite["lifecycle"] =
        json!({ "preStop": { "exec": { "command": ["sh", "-c", "echo told > /tmp/stop"] } } });
    world.create(
        "polite-1",
        json!({ "containers": [polite], "terminationGracePeriodSeconds": 600 }),
    );
    let stubborn = shell("main", "trap '' TERM; while true; do sleep 0.1; done");
    world.create(
        "stubborn-1",
        json!({ "containers": [stubborn], "terminationGracePeriodSeconds": 600 }),
    );
    world.create(
        "deadline-1",
        json!({ "containers": [shell("main", "sleep 600")], "activeDeadlineSeconds": 2 }),
    );
    world.wait("polite-1", "is ready", ready).await;
    world.wait("stubborn-1", "is ready", ready).await;
    // It ends when it is asked to, long before it would be killed.
    world.delete("polite-1", 600);
    world.gone("polite-1").await;
    world.delete("stubborn-1", 600);
    sleep(Duration::from_millis(500)).await;
    assert!(world.stub.get(&path("stubborn-1")).is_some());
    world.delete("stubborn-1", 0);
    world.gone("stubborn-1").await;
    let pod = world.wait("deadline-1", "fails", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    world.delete("deadline-1", 0);
    world.gone("deadline-1").await;
}

/// Readiness goes and comes; liveness restarts.
async fn probes_decide(world: &World) {
    let mut main =
        shell("main", "echo > /tmp/ready; echo > /tmp/alive; while true; do sleep 0.1; done");
    main["readinessProbe"] = json!({ "exec": { "command": ["cat", "/tmp/ready"] }, "periodSeconds": 1, "timeoutSeconds": PATIENCE, "failureThreshold": 1 });
    main["livenessProbe"] = json!({ "exec": { "command": ["cat", "/tmp/alive"] }, "periodSeconds": 1, "timeoutSeconds": PATIENCE, "failureThreshold": 1 });
    world.create("probe-1", json!({ "containers": [main] }));
    world.wait("probe-1", "is ready", ready).await;
    let exec = |script: &'static str| async move {
        world
            .kubelet
            .exec(
                &format!(
                    "/exec/default/probe-1/main?output=1&command=sh&command=-c&command={script}"
                ),
                b"",
            )
            .await
    };
    exec("mv%20/tmp/ready%20/tmp/unready%20%7C%7C%20/bin/busybox%20mv%20/tmp/ready%20/tmp/unready")
        .await;
    world.wait("probe-1", "is not ready", |pod| !ready(pod)).await;
    exec("/bin/busybox%20mv%20/tmp/unready%20/tmp/ready").await;
    world.wait("probe-1", "is ready again", ready).await;
    exec("/bin/busybox%20rm%20/tmp/alive").await;
    world
        .wait("probe-1", "restarts", |pod| container(pod, 0)["restartCount"] == 1 && ready(pod))
        .await;
    world.delete("probe-1", 1);
    world.gone("probe-1").await;
}

/// containerd dies; its containers do not notice, and the next one takes them over.
async fn containerd_comes_back(world: &World) {
    let script = "echo > /tmp/ready; while true; do sleep 0.1; done";
    world.create("outlive-1", json!({ "containers": [shell("main", script)] }));
    let before = world.wait("outlive-1", "is ready", ready).await;
    let file = world.config.data_dir.join("containerd/containerd.pid");
    let pid = || -> i32 { std::fs::read_to_string(&file).unwrap().trim().parse().unwrap() };
    let first = pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(120);
    while pid() == first {
        assert!(Instant::now() < limit, "containerd is not started again");
        sleep(Duration::from_millis(50)).await;
    }
    world.create("outlive-2", json!({ "containers": [shell("main", script)] }));
    world.wait("outlive-2", "is ready", ready).await;
    let after = world.wait("outlive-1", "is ready", ready).await;
    assert_eq!(container(&after, 0)["containerID"], container(&before, 0)["containerID"]);
    assert_eq!(container(&after, 0)["restartCount"], 0);
    // What somebody writes over our status is put right.
    world.stub.change(&path("outlive-1"), |pod| {
        for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
            condition["status"] = json!("False");
        }
    });
    world.wait("outlive-1", "is ready again", ready).await;
    for name in ["outlive-1", "outlive-2"] {
        world.delete(name, 1);
        world.gone(name).await;
    }
}

/// A new agent finds everything as it was, and removes what runs for nobody.
async fn an_agent_adopts_what_runs(world: &mut World) {
    let mut main = shell("main", "echo > /tmp/ready; while true; do sleep 0.1; done");
    main["readinessProbe"] = json!({ "exec": { "command": ["cat", "/tmp/ready"] }, "initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": PATIENCE });
    world.create("adopt-1", json!({ "containers": [main.clone()] }));
    world.create("orphan-1", json!({ "containers": [main] }));
    let before = world.wait("adopt-1", "is ready", ready).await;
    world.wait("orphan-1", "is ready", ready).await;
    let orphan = container(&world.stub.get(&path("orphan-1")).unwrap(), 0)["containerID"]
        .as_str()
        .unwrap()
        .to_owned();
    world.stop_agent().await;
    world.stub.remove(&path("orphan-1"));
    let stale = world.config.data_dir.join("pods/uid-long-gone/volumes");
    std::fs::create_dir_all(&stale).unwrap();
    world.start_agent();
    // It was never not ready in between.
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        let pod = world.stub.get(&path("adopt-1")).unwrap();
        assert!(ready(&pod), "{:#}", pod["status"]);
        assert_eq!(container(&pod, 0)["containerID"], container(&before, 0)["containerID"]);
        assert_eq!(container(&pod, 0)["restartCount"], 0);
        use pintle_nodeagent::runtime::Runtime;
        let runtime = pintle_nodeagent::runtime::cri::Cri::new(&containerd::socket_path(
            &world.config.data_dir,
        ));
        let gone = runtime.container(orphan.strip_prefix("containerd://").unwrap()).await.is_err();
        if gone {
            break;
        }
        assert!(Instant::now() < limit, "the orphan still runs");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!stale.exists());
    world.delete("adopt-1", 1);
    world.gone("adopt-1").await;
}
