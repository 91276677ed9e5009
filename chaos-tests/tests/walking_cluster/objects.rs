//! Objects that run nothing: apply, diff, explain, patches, labels, watches, deletion policies.

use std::time::Duration;

use pintle_chaos::{Cluster, Result, wait_for};

use crate::Step;
use crate::control::expect;

pub(crate) const STEPS: &[Step] = &[
    ("apply, diff, server-side apply and its conflicts", apply),
    ("explain, api-resources, validation", explain),
    ("json, merge and strategic patches, label, annotate", patches),
    ("get -w, -o wide, -o yaml, selectors", reading),
    ("custom resources", custom_resources),
];

fn config_map(value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: e2e-config\ndata:\n  key: {value}\n"
    )
}

fn apply(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    expect(&kubectl.run_with(&["apply", "-f", "-"], &config_map("one"))?, "created")?;
    expect(&kubectl.run_with(&["apply", "-f", "-"], &config_map("one"))?, "unchanged")?;
    match kubectl.run_with(&["diff", "-f", "-"], &config_map("two")) {
        Ok(_) => return Err("diff saw no difference".into()),
        Err(failed) => expect(&failed.output, "+  key: two")?,
    }
    expect(&kubectl.run_with(&["apply", "-f", "-"], &config_map("two"))?, "configured")?;
    let other = ["apply", "--server-side", "--field-manager", "other", "-f", "-"];
    match kubectl.run_with(&other, &config_map("three")) {
        Ok(_) => return Err("another manager took the field without force".into()),
        Err(failed) => expect(&failed.output, "conflict")?,
    }
    let forced =
        ["apply", "--server-side", "--force-conflicts", "--field-manager", "other", "-f", "-"];
    expect(&kubectl.run_with(&forced, &config_map("three"))?, "serverside-applied")?;
    let value = kubectl.run(&["get", "configmap", "e2e-config", "-o", "jsonpath={.data.key}"])?;
    expect(&value, "three")?;
    kubectl.run(&["delete", "configmap", "e2e-config"])?;
    Ok(())
}

fn explain(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    expect(&kubectl.run(&["explain", "deployment.spec.strategy"])?, "rollingUpdate")?;
    expect(&kubectl.run(&["explain", "pod.spec.containers.image"])?, "FIELD: image")?;
    let resources = kubectl.run(&["api-resources", "--no-headers"])?;
    if resources.lines().count() < 50 {
        return Err(format!("only {} resources:\n{resources}", resources.lines().count()));
    }
    let typo = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: typo\ndate:\n  key: one\n";
    match kubectl.run_with(&["apply", "-f", "-"], typo) {
        Ok(_) => Err("an unknown field was accepted".into()),
        Err(failed) => expect(&failed.output, "unknown field \"date\""),
    }
}

fn patches(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "configmap", "patched", "--from-literal=a=1"])?;
    let patch = |kind: &str, patch: &str| {
        kubectl.run(&["patch", "configmap", "patched", "--type", kind, "-p", patch])
    };
    patch("merge", r#"{"data":{"b":"2"}}"#)?;
    patch("json", r#"[{"op":"replace","path":"/data/a","value":"3"}]"#)?;
    patch("strategic", r#"{"data":{"c":"4"}}"#)?;
    let test = kubectl.run_failing(&[
        "patch",
        "configmap",
        "patched",
        "--type",
        "json",
        "-p",
        r#"[{"op":"test","path":"/data/a","value":"9"}]"#,
    ])?;
    expect(&test, "test")?;
    let data = kubectl.run(&["get", "configmap", "patched", "-o", "jsonpath={.data}"])?;
    expect(&data, r#"{"a":"3","b":"2","c":"4"}"#)?;
    kubectl.run(&["label", "configmap", "patched", "tier=back"])?;
    kubectl.run(&["annotate", "configmap", "patched", "note=x"])?;
    expect(&kubectl.run(&["get", "configmap", "-l", "tier=back", "-o", "name"])?, "patched")?;
    kubectl.run(&["label", "configmap", "patched", "tier-"])?;
    kubectl.run(&["delete", "configmap", "patched"])?;
    Ok(())
}

fn reading(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    expect(&kubectl.run(&["get", "nodes", "-o", "wide"])?, "CONTAINER-RUNTIME")?;
    expect(&kubectl.run(&["get", "node", "node-1", "-o", "yaml"])?, "kind: Node")?;
    expect(&kubectl.run(&["describe", "node", "node-1"])?, "Allocatable:")?;
    let watch = kubectl.start(&["get", "configmaps", "-w", "-o", "name"])?;
    // The list comes first: from here on it watches.
    watch.wait_for_words("configmap/kube-root-ca.crt", Duration::from_secs(60))?;
    kubectl.run(&["create", "configmap", "seen", "--from-literal=a=1"])?;
    kubectl.run(&["delete", "configmap", "seen"])?;
    let probe = kubectl.start(&["wait", "--for=delete", "configmap/seen", "--timeout=180s"])?;
    probe.finish(Duration::from_secs(90))?;
    watch.wait_for_words("configmap/seen", Duration::from_secs(60))?;
    let names =
        kubectl.run(&["get", "ns", "--field-selector", "metadata.name=default", "-o", "name"])?;
    if names.trim() != "namespace/default" {
        return Err(format!("field selector: {names}"));
    }
    Ok(())
}

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rudders.e2e.example.com}
spec:
  group: e2e.example.com
  scope: Namespaced
  names: {plural: rudders, singular: rudder, kind: Rudder, shortNames: [rd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Angle, type: integer, jsonPath: .spec.angle}
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              angle: {type: integer, minimum: -35, maximum: 35}
              side: {type: string, default: port}
"#;

fn custom_resources(cluster: &Cluster) -> Result {
    let kubectl = cluster.kubectl();
    kubectl.run_with(&["apply", "-f", "-"], CRD)?;
    kubectl.run(&[
        "wait",
        "--for=condition=Established",
        "crd/rudders.e2e.example.com",
        "--timeout=180s",
    ])?;
    let rudder = |angle: &str| {
        format!(
            "apiVersion: e2e.example.com/v1\nkind: Rudder\nmetadata: {{name: main}}\nspec: {{angle: {angle}}}\n"
        )
    };
    wait_for("the custom resource is served", Duration::from_secs(180), || {
        kubectl.run_with(&["apply", "-f", "-"], &rudder("5")).map_err(String::from)
    })?;
    expect(&kubectl.run(&["get", "rd", "main"])?, "ANGLE")?;
    expect(&kubectl.run(&["get", "rd", "main", "-o", "jsonpath={.spec.side}"])?, "port")?;
    match kubectl.run_with(&["apply", "-f", "-"], &rudder("90")) {
        Ok(_) => return Err("an angle of 90 was accepted".into()),
        Err(failed) => expect(&failed.output, "should be less than or equal to 35")?,
    }
    kubectl.run(&["delete", "crd", "rudders.e2e.example.com"])?;
    Ok(())
}
