//! The API as kubectl sees it. Where there is no kubectl the tests have nothing to say.

mod harness;

use harness::{Cluster, Ran};

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: c
        image: demo:1
        ports: [{containerPort: 80}]
";

const CRD: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: crontabs.stable.example.com
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What to run when.
            properties:
              cronSpec: {type: string}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
";

struct Kubectl(Cluster);

impl Kubectl {
    /// `None` when kubectl is not installed.
    async fn start() -> Option<Self> {
        let cluster = Cluster::start().await;
        if cluster.kubectl(&["version", "--client"], "").await.is_none() {
            eprintln!("kubectl is not installed: skipped");
            return None;
        }
        let kubectl = Self(cluster);
        kubectl.ok(&["create", "namespace", "shop"]).await;
        Some(kubectl)
    }

    async fn run(&self, arguments: &[&str], stdin: &str) -> Ran {
        self.0.kubectl(arguments, stdin).await.expect("kubectl was there a moment ago")
    }

    /// The output of a command that succeeds.
    async fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "").await
    }

    async fn ok_with(&self, arguments: &[&str], stdin: &str) -> String {
        let ran = self.run(arguments, stdin).await;
        assert!(ran.ok, "kubectl {arguments:?}: {}{}", ran.out, ran.err);
        ran.out
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applies_shows_explains_and_deletes_a_deployment() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let applied = kubectl.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(applied.trim(), "deployment.apps/web created");
    let again = kubectl.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(again.trim(), "deployment.apps/web unchanged");
    let changed = DEPLOYMENT.replace("demo:1", "demo:2");
    let diff = kubectl.run(&["diff", "-f", "-"], &changed).await;
    assert!(
        !diff.ok && diff.out.contains("+        image: demo:2") || diff.out.contains("demo:2"),
        "{diff:?}"
    );
    assert_eq!(
        kubectl.ok_with(&["apply", "-f", "-"], &changed).await.trim(),
        "deployment.apps/web configured"
    );
    let table = kubectl.ok(&["get", "deploy", "-n", "shop"]).await;
    assert!(
        table.starts_with("NAME") && table.contains("READY") && table.contains("0/2"),
        "{table}"
    );
    let wide = kubectl.ok(&["get", "deploy", "-n", "shop", "-o", "wide"]).await;
    assert!(wide.contains("demo:2") && wide.contains("app=web"), "{wide}");
    let yaml = kubectl.ok(&["get", "deploy", "web", "-n", "shop", "-o", "yaml"]).await;
    assert!(yaml.contains("image: demo:2"), "{yaml}");
    assert!(
        kubectl.ok(&["scale", "deploy/web", "-n", "shop", "--replicas=5"]).await.contains("scaled")
    );
    let image = ["set", "image", "-n", "shop", "deploy/web", "c=demo:3"];
    assert!(kubectl.ok(&image).await.contains("image updated"));
    let label = ["label", "-n", "shop", "deploy/web", "tier=front"];
    assert!(kubectl.ok(&label).await.contains("labeled"));
    let explained = kubectl.ok(&["explain", "deployment.spec.replicas"]).await;
    assert!(explained.contains("GROUP:") && explained.contains("<integer>"), "{explained}");
    let invalid = DEPLOYMENT.replace("replicas: 2", "replicaz: 2");
    let refused = kubectl.run(&["apply", "-f", "-"], &invalid).await;
    assert!(!refused.ok && refused.err.contains("replicaz"), "{refused:?}");
    let deleted = kubectl.ok(&["delete", "deploy", "web", "-n", "shop"]).await;
    assert!(deleted.contains("\"web\" deleted"), "{deleted}");
    let missing = kubectl.run(&["get", "deploy", "web", "-n", "shop"], "").await;
    assert!(missing.err.contains("deployments.apps \"web\" not found"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applies_server_side_with_conflicts() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let apply = ["apply", "--server-side", "-f", "-"];
    let applied = kubectl.ok_with(&apply, DEPLOYMENT).await;
    assert_eq!(applied.trim(), "deployment.apps/web serverside-applied");
    let changed = DEPLOYMENT.replace("replicas: 2", "replicas: 3");
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let conflict = kubectl.run(&other, &changed).await;
    assert!(!conflict.ok && conflict.err.contains(".spec.replicas"), "{conflict:?}");
    let forced =
        ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"];
    kubectl.ok_with(&forced, &changed).await;
    let replicas = ["get", "deploy", "web", "-n", "shop", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(kubectl.ok(&replicas).await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_resources_and_custom_ones() {
    let Some(kubectl) = Kubectl::start().await else { return };
    let resources = kubectl.ok(&["api-resources"]).await;
    for expected in ["deployments", "pods", "customresourcedefinitions", "clusterroles", "cronjobs"]
    {
        assert!(resources.contains(expected), "{expected} in {resources}");
    }
    assert!(kubectl.ok(&["api-versions"]).await.contains("apps/v1"));
    assert!(kubectl.ok(&["version"]).await.contains("v1.37.0"));
    kubectl.ok_with(&["apply", "-f", "-"], CRD).await;
    let wait =
        ["wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=20s"];
    kubectl.ok(&wait).await;
    let tab = "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {name: mine, namespace: shop}\nspec: {cronSpec: \"* * * * *\"}\n";
    kubectl.ok_with(&["apply", "-f", "-"], tab).await;
    let table = kubectl.ok(&["get", "ct", "-n", "shop"]).await;
    assert!(table.contains("SPEC") && table.contains("* * * * *"), "{table}");
    let explained = kubectl.ok(&["explain", "crontab.spec"]).await;
    assert!(explained.contains("What to run when."), "{explained}");
    kubectl.ok(&["delete", "crd", "crontabs.stable.example.com"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_objects_in_small_steps() {
    let Some(kubectl) = Kubectl::start().await else { return };
    kubectl.ok(&["create", "configmap", "c", "-n", "shop", "--from-literal=a=1"]).await;
    kubectl.ok(&["patch", "configmap", "c", "-n", "shop", "-p", "{\"data\":{\"b\":\"2\"}}"]).await;
    let json = "[{\"op\":\"remove\",\"path\":\"/data/a\"}]";
    kubectl.ok(&["patch", "configmap", "c", "-n", "shop", "--type=json", "-p", json]).await;
    let data = ["get", "configmap", "c", "-n", "shop", "-o", "jsonpath={.data}"];
    assert_eq!(kubectl.ok(&data).await, "{\"b\":\"2\"}");
    kubectl.ok(&["annotate", "configmap", "c", "-n", "shop", "note=x"]).await;
    let dry = ["delete", "configmap", "c", "-n", "shop", "--dry-run=server"];
    assert!(kubectl.ok(&dry).await.contains("server dry run"));
    kubectl.ok(&["create", "secret", "generic", "s", "-n", "shop", "--from-literal=p=q"]).await;
    let all = kubectl.ok(&["get", "configmaps,secrets", "-n", "shop"]).await;
    assert!(all.contains("configmap/c") && all.contains("secret/s"), "{all}");
    kubectl.ok(&["delete", "configmap,secret", "--all", "-n", "shop"]).await;
}

/// For trying things out by hand: prints the path of a kubeconfig and serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until it is interrupted"]
async fn serves_until_interrupted() {
    let cluster = Cluster::start().await;
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    std::future::pending::<()>().await;
}
