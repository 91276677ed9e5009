//! What clients look for in the documents.

use serde_json::{Value, json};

use super::{v2_document, v3_document, v3_index};
use crate::{GroupVersion, RestMapper};

fn apps() -> Value {
    v3_document(&RestMapper::builtin(), &GroupVersion::new("apps", "v1"))
}

const DEPLOYMENT_PATH: &str = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";

#[test]
fn clients_find_the_patch_parameters_and_types_of_a_kind() {
    let document = apps();
    let patch = &document["paths"][DEPLOYMENT_PATH]["patch"];
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["pretty", "dryRun", "fieldManager", "fieldValidation", "force"]);
    let types: Vec<&String> = patch["requestBody"]["content"].as_object().unwrap().keys().collect();
    assert_eq!(
        types,
        [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json"
        ]
    );
}

#[test]
fn schemas_carry_kinds_and_merge_facts() {
    let document = apps();
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let metadata = &deployment["properties"]["metadata"]["allOf"][0]["$ref"];
    assert_eq!(metadata, "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let list = &schemas["io.k8s.api.apps.v1.DeploymentList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "DeploymentList");
}

/// Calls `f` with every `$ref` in a document.
fn each_reference(value: &Value, f: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                match below {
                    Value::String(target) if key == "$ref" => f(target),
                    other => each_reference(other, f),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| each_reference(item, f)),
        _ => {}
    }
}

#[test]
fn every_reference_of_every_document_resolves() {
    let mapper = RestMapper::builtin();
    let mut documents = vec![(String::from("v2"), v2_document(&mapper))];
    for group in mapper.groups() {
        for version in mapper.versions(&group) {
            let gv = GroupVersion::new(&*group, version);
            documents.push((gv.to_string(), v3_document(&mapper, &gv)));
        }
    }
    for (name, document) in &documents {
        each_reference(document, &mut |target| {
            // Only a custom schema may have a property that is called `$ref`.
            if let Some(pointer) = target.strip_prefix("#/") {
                let found = pointer.split('/').try_fold(document, |value, key| value.get(key));
                assert!(found.is_some(), "{name}: {target}");
            }
        });
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = v2_document(&RestMapper::builtin());
    let mut seen = std::collections::HashSet::new();
    for path in document["paths"].as_object().unwrap().values() {
        for operation in path.as_object().unwrap().values() {
            if let Some(id) = operation.get("operationId") {
                assert!(seen.insert(id.clone()), "{id}");
            }
        }
    }
    assert!(seen.contains(&json!("createCoreV1NamespacedPod")));
    assert!(seen.contains(&json!("listAppsV1DeploymentForAllNamespaces")));
}

#[test]
fn the_index_links_to_documents_by_hash() {
    let index = v3_index(&[
        (GroupVersion::new("", "v1"), "AB".into()),
        (GroupVersion::new("apps", "v1"), "CD".into()),
    ]);
    assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], "/openapi/v3/api/v1?hash=AB");
    assert_eq!(
        index["paths"]["apis/apps/v1"]["serverRelativeURL"],
        "/openapi/v3/apis/apps/v1?hash=CD"
    );
}
