//! Transcripts of appliers and updaters on one object.

use serde_json::{Value, json};

use super::apply;
use crate::managed_fields::{Writer, track_update};
use crate::status::Result;
use crate::{RestMapper, schema};

fn writer<'a>(manager: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, api_version: "apps/v1", subresource: "", time }
}

fn run(live: Option<&Value>, config: Value, manager: &str, force: bool) -> Result<Value> {
    let view = schema::builtin().view("io.k8s.api.apps.v1.Deployment");
    apply(live, &config, view, &writer(manager, "2026-01-01T00:00:00Z"), force)
}

fn updated(live: &Value, mut new: Value, manager: &str) -> Value {
    let mapper = RestMapper::builtin();
    let resource = mapper.preferred("apps", "deployments").unwrap();
    track_update(Some(live), &mut new, resource.schema(), &writer(manager, "2026-01-02T00:00:00Z"));
    new
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

#[test]
fn an_apply_creates_and_owns_what_it_configures() {
    let live = run(None, config(json!({"replicas": 1, "paused": true})), "a", false).unwrap();
    let entry = &live["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let configured = config(
        json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
    );
    let live = run(None, configured.clone(), "a", false).unwrap();
    let view = schema::builtin().view("io.k8s.api.apps.v1.Deployment");
    let again =
        apply(Some(&live), &configured, view, &writer("a", "2027-01-01T00:00:00Z"), false).unwrap();
    assert_eq!(again, live);
}

#[test]
fn what_an_applier_no_longer_configures_is_removed_unless_another_owns_it() {
    let live =
        run(None, config(json!({"replicas": 1, "paused": true, "minReadySeconds": 5})), "a", false)
            .unwrap();
    let live = run(Some(&live), config(json!({"minReadySeconds": 5})), "b", false).unwrap();
    let live = run(Some(&live), config(json!({"replicas": 1})), "a", false).unwrap();
    assert_eq!(live["spec"], json!({"replicas": 1, "minReadySeconds": 5}));
}

#[test]
fn a_disputed_field_is_a_conflict_until_forced() {
    let live = run(None, config(json!({"replicas": 1})), "a", false).unwrap();
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = updated(&live, scaled, "kubectl");
    let error = run(Some(&live), config(json!({"replicas": 2})), "a", false).unwrap_err();
    assert_eq!(error.code, 409);
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1 at 2026-01-02T00:00:00Z: .spec.replicas"
    );
    let cause = &error.details.as_ref().unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", ".spec.replicas")
    );
    let forced = run(Some(&live), config(json!({"replicas": 2})), "a", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(forced["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn an_equal_value_is_shared_without_conflict() {
    let live = run(None, config(json!({"replicas": 1})), "a", false).unwrap();
    let live = run(Some(&live), config(json!({"replicas": 1})), "b", false).unwrap();
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 2);
    let live = run(Some(&live), config(json!({})), "a", false).unwrap();
    assert_eq!(live["spec"]["replicas"], 1);
}

#[test]
fn keyed_lists_merge_by_key_and_items_leave_with_their_owner() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let pod = |containers: Value| config(json!({"template": {"spec": {"containers": containers}}}));
    let live =
        run(None, pod(json!([container("one", "a"), container("two", "b")])), "a", false).unwrap();
    let live = run(Some(&live), pod(json!([container("side", "s")])), "b", false).unwrap();
    let names = |live: &Value| -> Vec<String> {
        let list = live["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&live), ["one", "two", "side"]);
    let live =
        run(Some(&live), pod(json!([container("two", "b"), container("new", "n")])), "a", false)
            .unwrap();
    assert_eq!(names(&live), ["two", "side", "new"]);
}

#[test]
fn ports_are_told_apart_by_port_and_protocol() {
    let ports = |ports: Value| {
        config(json!({"template": {"spec": {"containers": [{"name": "c", "ports": ports}]}}}))
    };
    let both = ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]));
    let live = run(None, both, "a", false).unwrap();
    let fields = live["metadata"]["managedFields"].to_string();
    assert!(fields.contains(r#"k:{\"containerPort\":53,\"protocol\":\"TCP\"}"#), "{fields}");
    let twice = ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "TCP"}]));
    assert!(run(None, twice, "a", false).is_err());
}

#[test]
fn defaulted_fields_survive_an_apply_that_does_not_name_them() {
    let live = run(None, config(json!({"replicas": 1})), "a", false).unwrap();
    let mut live = live;
    live["spec"]["revisionHistoryLimit"] = json!(10);
    let next = run(Some(&live), config(json!({"replicas": 2})), "a", false).unwrap();
    assert_eq!(
        without_managed_fields(&next)["spec"],
        json!({"replicas": 2, "revisionHistoryLimit": 10})
    );
}

#[test]
fn a_configuration_may_not_carry_managed_fields() {
    let mut configured = config(json!({}));
    configured["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(run(None, configured, "a", false).unwrap_err().code, 400);
}

#[test]
fn status_is_applied_through_its_subresource_alone() {
    let mut configured = config(json!({"replicas": 1}));
    configured["status"] = json!({"replicas": 7});
    let live = run(None, configured.clone(), "a", false).unwrap();
    assert_eq!(live.get("status"), None);
    let view = schema::builtin().view("io.k8s.api.apps.v1.Deployment");
    let writer = Writer { subresource: "status", ..writer("s", "2026-01-01T00:00:00Z") };
    configured["spec"]["replicas"] = json!(5);
    let live = apply(Some(&live), &configured, view, &writer, false).unwrap();
    assert_eq!(live["spec"]["replicas"], 1);
    assert_eq!(live["status"]["replicas"], 7);
}

#[test]
fn an_untracked_object_belongs_to_whoever_wrote_it_before() {
    let live = config(json!({"replicas": 1}));
    let error = run(Some(&live), config(json!({"replicas": 2})), "a", false).unwrap_err();
    assert!(error.message.contains("\"before-first-apply\""), "{}", error.message);
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    let applied = config(json!({"replicas": 1}));
    let mut created = applied.clone();
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    created["metadata"]["annotations"] = json!({annotation: applied.to_string()});
    let view = schema::builtin().view("io.k8s.api.apps.v1.Deployment");
    let client = writer("kubectl-client-side-apply", "2026-01-01T00:00:00Z");
    track_update(None, &mut created, view, &client);
    let next = run(Some(&created), config(json!({"replicas": 2})), "kubectl", false).unwrap();
    assert_eq!(next["spec"]["replicas"], 2);
    assert!(
        next["metadata"]["annotations"][annotation].as_str().unwrap().contains("\"replicas\":2")
    );
    assert!(run(Some(&created), config(json!({"replicas": 2})), "other", false).is_err());
}

#[test]
fn merged_lists_keep_the_order_of_both() {
    let cases = [
        (&["a", "x", "b"][..], &["b", "a"][..], &["x", "b", "a"][..]),
        (&["a", "b"], &["c"], &["a", "b", "c"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["a", "n", "b"], &["a", "n", "b"]),
        (&[], &["a"], &["a"]),
        (&["a"], &[], &["a"]),
    ];
    let finalizers = |names: &[&str]| {
        let mut object = config(json!({}));
        object["metadata"]["finalizers"] = json!(names);
        object
    };
    for (live, configured, expected) in cases {
        let merged = run(Some(&finalizers(live)), finalizers(configured), "a", true).unwrap();
        assert_eq!(merged["metadata"]["finalizers"], json!(expected), "{live:?} + {configured:?}");
    }
}
