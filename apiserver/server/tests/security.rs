//! Who may do what, and what admission and the strategies make of it, through the API.

mod harness;

use std::time::{Duration, Instant};

use harness::{Answer, Cluster};
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "t"}});
    cluster.post("/api/v1/namespaces", &namespace).await.expect(201);
    let account =
        json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default"}});
    cluster.post("/api/v1/namespaces/t/serviceaccounts", &account).await.expect(201);
    cluster
}

/// A request as somebody else.
async fn as_user(
    cluster: &Cluster,
    user: &str,
    groups: &[&str],
    method: &str,
    path: &str,
    body: &Value,
) -> Answer {
    let mut headers = vec![("content-type", "application/json"), ("impersonate-user", user)];
    headers.extend(groups.iter().map(|group| ("impersonate-group", *group)));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    cluster.request(method, path, &headers, body.as_bytes()).await
}

async fn get_as(cluster: &Cluster, user: &str, groups: &[&str], path: &str) -> Answer {
    as_user(cluster, user, groups, "GET", path, &Value::Null).await
}

/// The cache of another request's write may lag for a moment.
macro_rules! eventually {
    ($what:expr, $ask:expr) => {{
        let started = Instant::now();
        loop {
            match $ask {
                Ok(done) => break done,
                Err(last) => {
                    assert!(started.elapsed() < Duration::from_secs(10), "{}: {last:?}", $what);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }};
}

fn code(answer: Answer, wanted: u16) -> Result<Answer, (u16, String)> {
    if answer.code == wanted {
        return Ok(answer);
    }
    Err((answer.code, String::from_utf8_lossy(&answer.bytes).into_owned()))
}

fn pod(name: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "demo"}]},
    })
}

async fn bind(cluster: &Cluster, pod: &str, node: &str) -> Answer {
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": pod},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    cluster.post(&format!("/api/v1/namespaces/t/pods/{pod}/binding"), &binding).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_cluster_has_its_bootstrap_objects() {
    let cluster = Cluster::start().await;
    for path in [
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-node-lease",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
        "/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        "/api/v1/namespaces/kube-public/configmaps/cluster-info",
    ] {
        cluster.get(path).await.expect(200);
    }
    for name in ["cluster-admin", "admin", "edit", "view", "system:node", "system:kube-scheduler"] {
        cluster.get(&format!("{RBAC}/clusterroles/{name}")).await.expect(200);
    }
    let dns = cluster.get("/api/v1/namespaces/kube-system/services/kube-dns").await.expect(200);
    assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
    let api = cluster.get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
    assert_eq!(api["spec"]["clusterIPs"], json!(["10.96.0.1"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_namespace_cannot_be_deleted_and_strangers_see_only_health() {
    let cluster = Cluster::start().await;
    let refused = cluster.delete("/api/v1/namespaces/default").await.expect(403);
    assert_eq!(
        refused["message"],
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
    assert_eq!(cluster.anonymous("GET", "/readyz", &[]).await.code, 200);
    assert_eq!(cluster.anonymous("GET", "/version", &[]).await.code, 401);
    assert_eq!(cluster.anonymous("GET", "/api/v1/namespaces", &[]).await.code, 401);
    let wrong = [("authorization", "Bearer nonsense")];
    assert_eq!(cluster.anonymous("GET", "/api/v1/namespaces", &wrong).await.code, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_decide_what_a_user_may_do() {
    let cluster = cluster().await;
    let pods = "/api/v1/namespaces/t/pods";
    let refused = get_as(&cluster, "ann", &[], pods).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"t\""
    );
    let role = json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
    cluster.post(&format!("{RBAC}/namespaces/t/roles"), &role).await.expect(201);
    let binding = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "ann"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    cluster.post(&format!("{RBAC}/namespaces/t/rolebindings"), &binding).await.expect(201);
    eventually!("ann reads pods", code(get_as(&cluster, "ann", &[], pods).await, 200));
    assert_eq!(as_user(&cluster, "ann", &[], "POST", pods, &pod("p")).await.code, 403);
    assert_eq!(get_as(&cluster, "ann", &[], "/api/v1/pods").await.code, 403);
    assert_eq!(get_as(&cluster, "ann", &[], "/apis").await.code, 200);

    let review = |verb: &str| {
        json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {"resourceAttributes": {"namespace": "t", "verb": verb, "resource": "pods"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (verb, allowed) in [("list", true), ("delete", false)] {
        let answer = as_user(&cluster, "ann", &[], "POST", path, &review(verb)).await.expect(201);
        assert_eq!(answer["status"]["allowed"], allowed, "{verb}");
    }
    let rules = json!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"namespace": "t"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = as_user(&cluster, "ann", &[], "POST", path, &rules).await.expect(201);
    let resources = answer["status"]["resourceRules"].as_array().expect("rules");
    assert!(resources.iter().any(|rule| rule["resources"] == json!(["pods"])), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hands_out_more_than_they_hold() {
    let cluster = cluster().await;
    let role = |name: &str, verbs: Value| {
        json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
        "rules": [
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "update"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        ]})
    };
    cluster.post(&format!("{RBAC}/clusterroles"), &role("lead", json!(["get"]))).await.expect(201);
    let binding = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "lead"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lead"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "lea"}]});
    cluster.post(&format!("{RBAC}/namespaces/t/rolebindings"), &binding).await.expect(201);
    let roles = format!("{RBAC}/namespaces/t/roles");
    let wish = |name: &str, verb: &str| {
        json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]})
    };
    eventually!(
        "lea hands out what she has",
        code(as_user(&cluster, "lea", &[], "POST", &roles, &wish("some", "get")).await, 201)
    );
    let refused =
        as_user(&cluster, "lea", &[], "POST", &roles, &wish("more", "delete")).await.expect(403);
    let message = refused["message"].as_str().expect("a message");
    assert!(
        message.contains("is attempting to grant RBAC permissions not currently held"),
        "{message}"
    );
    assert!(
        message.contains(r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#),
        "{message}"
    );
    let to_admin = json!({"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "own"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "lea"}]});
    let bindings = format!("{RBAC}/namespaces/t/rolebindings");
    assert_eq!(as_user(&cluster, "lea", &[], "POST", &bindings, &to_admin).await.code, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_as_long_as_what_it_is_bound_to() {
    let cluster = cluster().await;
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 900}});
    let path = "/api/v1/namespaces/t/serviceaccounts/default/token";
    let issued = cluster.post(path, &request).await.expect(201);
    let token = issued["status"]["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(cluster.anonymous("GET", "/apis", &headers).await.code, 200);
    let forbidden =
        cluster.anonymous("GET", "/api/v1/namespaces/t/secrets", &headers).await.expect(403);
    let message = forbidden["message"].as_str().expect("a message");
    assert!(message.contains("User \"system:serviceaccount:t:default\""), "{message}");

    let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = cluster.post(reviews, &review).await.expect(201);
    assert_eq!(answer["status"]["authenticated"], true);
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:t:default");
    assert!(
        answer["status"]["user"]["groups"]
            .as_array()
            .expect("groups")
            .contains(&json!("system:serviceaccounts:t"))
    );

    let refused = cluster.post(path, &json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 5}})).await;
    assert_eq!(refused.code, 422);
    cluster.delete("/api/v1/namespaces/t/serviceaccounts/default").await.expect(200);
    eventually!("the token dies", code(cluster.anonymous("GET", "/apis", &headers).await, 401));
    let answer = cluster.post(reviews, &review).await.expect(201);
    assert_ne!(answer["status"]["authenticated"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_sees_what_its_pods_need_and_nothing_else() {
    let cluster = cluster().await;
    let node = ("system:node:n1", ["system:nodes"]);
    let secret =
        |name: &str| json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}});
    for name in ["needed", "other"] {
        cluster.post("/api/v1/namespaces/t/secrets", &secret(name)).await.expect(201);
    }
    let mut wanting = pod("p");
    wanting["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "needed"}}]);
    cluster.post("/api/v1/namespaces/t/pods", &wanting).await.expect(201);
    assert_eq!(
        get_as(&cluster, node.0, &node.1, "/api/v1/namespaces/t/secrets/needed").await.code,
        403
    );
    bind(&cluster, "p", "n1").await.expect(201);
    eventually!(
        "the node reads the secret",
        code(get_as(&cluster, node.0, &node.1, "/api/v1/namespaces/t/secrets/needed").await, 200)
    );
    for path in
        ["/api/v1/namespaces/t/secrets/other", "/api/v1/namespaces/t/secrets", "/api/v1/pods"]
    {
        assert_eq!(get_as(&cluster, node.0, &node.1, path).await.code, 403, "{path}");
    }
    let own = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1";
    assert_eq!(get_as(&cluster, node.0, &node.1, own).await.code, 200);
    let me = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    let created =
        as_user(&cluster, node.0, &node.1, "POST", "/api/v1/nodes", &me).await.expect(201);
    assert_eq!(created["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let other = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n2"}});
    let refused =
        as_user(&cluster, node.0, &node.1, "POST", "/api/v1/nodes", &other).await.expect(403);
    assert!(
        refused["message"]
            .as_str()
            .expect("a message")
            .contains("is not allowed to modify node \"n2\"")
    );

    let uid =
        cluster.get("/api/v1/namespaces/t/pods/p").await.expect(200)["metadata"]["uid"].clone();
    let token = |spec: Value| json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    let path = "/api/v1/namespaces/t/serviceaccounts/default/token";
    let bound = token(
        json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}),
    );
    as_user(&cluster, node.0, &node.1, "POST", path, &bound).await.expect(201);
    let unbound = as_user(&cluster, node.0, &node.1, "POST", path, &token(json!({}))).await;
    assert_eq!(unbound.code, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_completed_bound_once_and_stopped_with_grace() {
    let cluster = cluster().await;
    let created = cluster.post("/api/v1/namespaces/t/pods", &pod("p")).await.expect(201);
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(created["status"]["qosClass"], "BestEffort");
    assert_eq!(created["spec"]["serviceAccountName"], "default");
    assert_eq!(created["spec"]["priority"], 0);
    assert_eq!(created["spec"]["tolerations"].as_array().expect("tolerations").len(), 2);
    let mount = &created["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");

    bind(&cluster, "p", "n1").await.expect(201);
    let refused = bind(&cluster, "p", "n2").await.expect(409);
    assert!(
        refused["message"].as_str().expect("a message").contains("already assigned to node \"n1\"")
    );
    let bound = cluster.get("/api/v1/namespaces/t/pods/p").await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");

    cluster.delete("/api/v1/namespaces/t/pods/p").await.expect(200);
    let stopping = cluster.get("/api/v1/namespaces/t/pods/p").await.expect(200);
    assert_eq!(stopping["metadata"]["deletionGracePeriodSeconds"], 30);
    cluster.delete("/api/v1/namespaces/t/pods/p?gracePeriodSeconds=0").await.expect(200);
    assert_eq!(cluster.get("/api/v1/namespaces/t/pods/p").await.code, 404);

    cluster.post("/api/v1/namespaces/t/pods", &pod("unbound")).await.expect(201);
    cluster.delete("/api/v1/namespaces/t/pods/unbound").await.expect(200);
    assert_eq!(cluster.get("/api/v1/namespaces/t/pods/unbound").await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_takes_an_ephemeral_container_and_new_resources() {
    let cluster = cluster().await;
    cluster.post("/api/v1/namespaces/t/pods", &pod("p")).await.expect(201);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "demo"}]}});
    let path = "/api/v1/namespaces/t/pods/p/ephemeralcontainers";
    let patched = cluster.patch(path, "strategic-merge-patch+json", &debug).await.expect(200);
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["name"], "debug");
    let image = json!({"spec": {"containers": [{"name": "c", "image": "demo:2"}]}});
    cluster
        .patch("/api/v1/namespaces/t/pods/p", "strategic-merge-patch+json", &image)
        .await
        .expect(200);
    let more = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}});
    let direct =
        cluster.patch("/api/v1/namespaces/t/pods/p", "strategic-merge-patch+json", &more).await;
    assert_eq!(direct.code, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_need_an_account_that_exists_and_a_living_namespace() {
    let cluster = cluster().await;
    let mut stranger = pod("p");
    stranger["spec"]["serviceAccountName"] = "nobody".into();
    let refused = cluster.post("/api/v1/namespaces/t/pods", &stranger).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"p\" is forbidden: error looking up service account t/nobody: serviceaccount \"nobody\" not found"
    );
    let missing = cluster.post("/api/v1/namespaces/nowhere/pods", &pod("p")).await.expect(404);
    assert_eq!(missing["message"], "namespaces \"nowhere\" not found");

    let leaving = cluster.delete("/api/v1/namespaces/t").await.expect(200);
    assert_eq!(leaving["status"]["phase"], "Terminating");
    let refused = eventually!(
        "nothing new in a terminating namespace",
        code(cluster.post("/api/v1/namespaces/t/pods", &pod("p")).await, 403)
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut namespace = cluster.get("/api/v1/namespaces/t").await.expect(200);
    namespace["spec"]["finalizers"] = json!([]);
    cluster.put("/api/v1/namespaces/t/finalize", &namespace).await.expect(200);
    assert_eq!(cluster.get("/api/v1/namespaces/t").await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_node_ports_are_given_once_and_taken_back() {
    let cluster = cluster().await;
    let services = "/api/v1/namespaces/t/services";
    let service = |name: &str, spec: Value| json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let wish = json!({"type": "NodePort", "clusterIP": "10.96.0.77", "ports": ports});
    let created = cluster.post(services, &service("a", wish)).await.expect(201);
    assert_eq!(created["spec"]["clusterIPs"], json!(["10.96.0.77"]));
    let claim = cluster.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.0.77").await.expect(200);
    assert_eq!(claim["spec"]["parentRef"]["name"], "a");

    let same_ip = json!({"clusterIP": "10.96.0.77", "ports": [{"port": 80}]});
    let refused = cluster.post(services, &service("b", same_ip)).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .expect("a message")
            .contains("failed to allocate IP 10.96.0.77: provided IP is already allocated"),
        "{refused}"
    );
    let same_port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    let refused = cluster.post(services, &service("b", same_port)).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .expect("a message")
            .contains("provided port is already allocated"),
        "{refused}"
    );
    let outside = json!({"clusterIP": "10.1.2.3", "ports": [{"port": 80}]});
    assert_eq!(cluster.post(services, &service("b", outside)).await.code, 422);

    let any = json!({"type": "NodePort", "ports": [
        {"name": "tcp", "port": 53, "protocol": "TCP"}, {"name": "udp", "port": 53, "protocol": "UDP"}]});
    let chosen = cluster.post(services, &service("dns", any)).await.expect(201);
    let node_ports = |service: &Value| -> Vec<i64> {
        service["spec"]["ports"]
            .as_array()
            .expect("ports")
            .iter()
            .map(|p| p["nodePort"].as_i64().unwrap_or(0))
            .collect()
    };
    let held = node_ports(&chosen);
    assert!(held[0] == held[1] && (30000..32768).contains(&held[0]), "{held:?}");

    let mut plain = cluster.get(&format!("{services}/a")).await.expect(200);
    plain["spec"]["type"] = "ClusterIP".into();
    let plain = cluster.put(&format!("{services}/a"), &plain).await.expect(200);
    assert_eq!(node_ports(&plain), [0]);
    assert_eq!(plain["spec"]["clusterIP"], "10.96.0.77");
    let now_free = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    cluster.post(services, &service("c", now_free)).await.expect(201);

    cluster.delete(&format!("{services}/a")).await.expect(200);
    let missing =
        cluster.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.0.77?resourceVersion=").await;
    assert_eq!(missing.code, 404);
    let again = json!({"clusterIP": "10.96.0.77", "ports": [{"port": 80}]});
    cluster.post(services, &service("b", again)).await.expect(201);
    let headless = json!({"clusterIP": "None", "ports": [{"port": 80}]});
    let headless = cluster.post(services, &service("headless", headless)).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    let external = cluster.post(services, &service("external", external)).await.expect(201);
    assert!(external["spec"].get("clusterIP").is_none(), "{external}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_respects_the_disruption_budget() {
    let cluster = cluster().await;
    for name in ["p", "q"] {
        cluster.post("/api/v1/namespaces/t/pods", &pod(name)).await.expect(201);
        bind(&cluster, name, "n1").await.expect(201);
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let path = format!("/api/v1/namespaces/t/pods/{name}/status");
        cluster.patch(&path, "merge-patch+json", &status).await.expect(200);
    }
    let budgets = "/apis/policy/v1/namespaces/t/poddisruptionbudgets";
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.post(budgets, &budget).await.expect(201);
    let evict = |name: &str| {
        let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name, "namespace": "t"}});
        let path = format!("/api/v1/namespaces/t/pods/{name}/eviction");
        let cluster = &cluster;
        async move { cluster.post(&path, &eviction).await }
    };
    let refused = eventually!("nobody has counted yet", code(evict("p").await, 429));
    assert!(refused.headers.contains_key("retry-after"));
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    cluster.patch(&format!("{budgets}/b/status"), "merge-patch+json", &status).await.expect(200);
    evict("p").await.expect(201);
    let leaving = cluster.get("/api/v1/namespaces/t/pods/p").await.expect(200);
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    let reasons: Vec<&Value> = leaving["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|c| &c["type"])
        .collect();
    assert!(reasons.contains(&&json!("DisruptionTarget")), "{reasons:?}");
    let refused = evict("q").await.expect(429);
    assert_eq!(
        refused["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_maps_stay_and_jobs_select_their_own_pods() {
    let cluster = cluster().await;
    let maps = "/api/v1/namespaces/t/configmaps";
    let frozen = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "immutable": true, "data": {"a": "1"}});
    cluster.post(maps, &frozen).await.expect(201);
    let change = json!({"data": {"a": "2"}});
    let refused =
        cluster.patch(&format!("{maps}/m"), "merge-patch+json", &change).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .expect("a message")
            .contains("field is immutable when `immutable` is set")
    );

    let job = json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j"}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "demo"}]}}}});
    let job = cluster.post("/apis/batch/v1/namespaces/t/jobs", &job).await.expect(201);
    let uid = &job["metadata"]["uid"];
    assert_eq!(&job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(&job["spec"]["template"]["metadata"]["labels"]["controller-uid"], uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_a_node_that_is_not_there_says_so() {
    let cluster = cluster().await;
    let mut two = pod("p");
    two["spec"]["containers"] =
        json!([{"name": "a", "image": "demo"}, {"name": "b", "image": "demo"}]);
    cluster.post("/api/v1/namespaces/t/pods", &two).await.expect(201);
    let log = "/api/v1/namespaces/t/pods/p/log";
    let unscheduled = cluster.get(&format!("{log}?container=a")).await.expect(400);
    assert_eq!(unscheduled["message"], "pod p does not have a host assigned");
    bind(&cluster, "p", "n1").await.expect(201);
    let unnamed = cluster.get(log).await.expect(400);
    assert_eq!(
        unnamed["message"],
        "a container name must be specified for pod p, choose one of: [a b]"
    );
    let gone = cluster.get(&format!("{log}?container=a")).await.expect(404);
    assert_eq!(gone["message"], "nodes \"n1\" not found");
}

/// What kubectl prints, when there is a kubectl on this machine.
async fn kubectl(cluster: &Cluster, arguments: &str) -> Option<(bool, String)> {
    let words: Vec<&str> = arguments.split(' ').collect();
    let ran = cluster.kubectl(&words, "").await?;
    Some((ran.ok, format!("{}{}", ran.out, ran.err).trim().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_asks_about_rights_accounts_and_tokens() {
    let cluster = cluster().await;
    let robot = "system:serviceaccount:t:default";
    let cases = [
        ("auth can-i delete pods".to_owned(), true, "yes"),
        (format!("auth can-i list pods -n t --as={robot}"), false, "no"),
        ("create clusterrole reader --verb=get,list --resource=pods".to_owned(), true, "created"),
        (
            "create rolebinding robot -n t --clusterrole=reader --serviceaccount=t:default"
                .to_owned(),
            true,
            "created",
        ),
        (format!("auth can-i list pods -n t --as={robot}"), true, "yes"),
        (format!("auth can-i delete pods -n t --as={robot}"), false, "no"),
        (format!("auth can-i --list -n t --as={robot}"), true, "[get list]"),
        ("auth whoami".to_owned(), true, "system:masters"),
        ("create token default -n t --duration=15m".to_owned(), true, "ey"),
        ("create service nodeport web -n t --tcp=80:8080".to_owned(), true, "created"),
        ("get service web -n t -o jsonpath={.spec.ports[0].nodePort}".to_owned(), true, "3"),
        ("create priorityclass high --value=1000".to_owned(), true, "created"),
        (
            "get nodes --as=system:node:n1 --as-group=system:nodes".to_owned(),
            true,
            "No resources found",
        ),
        (
            "get secrets -n t --as=system:node:n1 --as-group=system:nodes".to_owned(),
            false,
            "Forbidden",
        ),
        ("delete namespace kube-system".to_owned(), false, "this namespace may not be deleted"),
    ];
    for (arguments, ok, expected) in cases {
        let Some((ran_ok, out)) = kubectl(&cluster, &arguments).await else { return };
        assert_eq!(ran_ok, ok, "kubectl {arguments}: {out}");
        assert!(out.contains(expected), "kubectl {arguments}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_under_a_standard_lets_only_careful_pods_in() {
    let cluster = cluster().await;
    let labels = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}});
    cluster.patch("/api/v1/namespaces/t", "merge-patch+json", &labels).await.expect(200);
    let mut reaching = pod("reaching");
    reaching["spec"]["hostNetwork"] = true.into();
    let refused = eventually!(
        "host namespaces are refused",
        code(cluster.post("/api/v1/namespaces/t/pods?dryRun=All", &reaching).await, 403)
    );
    assert_eq!(
        refused.json()["message"],
        "pods \"reaching\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let plain = cluster.post("/api/v1/namespaces/t/pods", &pod("plain")).await;
    assert_eq!(plain.code, 201);
    let warning = plain.headers["warning"].to_str().expect("a text");
    assert!(warning.contains("would violate PodSecurity \\\"restricted:latest\\\""), "{warning}");
}
