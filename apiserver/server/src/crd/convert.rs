//! From a definition to entries of the resource table.

use std::sync::Arc;

use pintle_machinery::resource::{SelectableField, Storage, Subresource};
use pintle_machinery::schema::{Definitions, Schema};
use pintle_machinery::table::ColumnDefinition;
use pintle_machinery::{GroupVersion, GroupVersionKind, Path, Resource, object, schema};
use serde_json::Value;

use super::{Scale, names};

const VERBS: [&str; 8] =
    ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// A resource for every served version, and where its replicas are if it can be scaled.
pub(super) fn resources(definition: &Value) -> Vec<(Resource, Option<Scale>)> {
    let versions = object::get_list(definition, &["spec", "versions"]);
    let storage = versions.iter().find(|version| version["storage"] == true);
    let storage = storage.map(|version| object::get_str(version, &["name"])).unwrap_or_default();
    let served = versions.iter().filter(|version| version["served"] == true);
    served.map(|version| (resource(definition, version, storage), scale(version))).collect()
}

fn resource(definition: &Value, version: &Value, storage: &str) -> Resource {
    let (group, plural) = names::of(definition);
    let names = names::completed(definition);
    let text = |field: &str| object::get_str(&names, &[field]).to_owned();
    let list = |field: &str| strings(object::get_list(&names, &[field]));
    let gvk = GroupVersionKind::new(&*group, object::get_str(version, &["name"]), text("kind"));
    let definition_name = definition_name(&gvk);
    Resource {
        version: gvk.version.clone(),
        kind: gvk.kind.clone(),
        list_kind: text("listKind"),
        singular: text("singular"),
        short_names: list("shortNames"),
        categories: list("categories"),
        namespaced: object::get_str(definition, &["spec", "scope"]) == "Namespaced",
        verbs: VERBS.map(str::to_owned).to_vec(),
        subresources: subresources(version, &gvk),
        storage: Some(Storage {
            prefix: format!("{group}/{plural}"),
            version: GroupVersion::new(&*group, storage),
        }),
        selectable_fields: selectable_fields(version),
        definitions: Arc::new(Definitions::custom(
            &definition_name,
            root(definition, version),
            gvk,
        )),
        definition: definition_name,
        printer_columns: columns(version),
        custom: true,
        group,
        plural,
    }
}

/// The schema of a version; without one, anything goes.
fn root(definition: &Value, version: &Value) -> Schema {
    let anything = Schema { preserve_unknown_fields: true, ..Schema::default() };
    let Some(source) = object::get(version, &["schema", "openAPIV3Schema"]) else {
        return anything;
    };
    match schema::parse_structural(source, &Path::new("spec")) {
        Ok(mut schema) => {
            schema.preserve_unknown_fields |=
                object::get(definition, &["spec", "preserveUnknownFields"])
                    == Some(&Value::Bool(true));
            schema
        }
        // Only established definitions come here; an old one may predate a rule.
        Err(errors) => {
            tracing::warn!(definition = object::name(definition), %errors, "the schema is not structural");
            anything
        }
    }
}

/// `com.example.stable.v1.CronTab`.
fn definition_name(gvk: &GroupVersionKind) -> String {
    let mut parts: Vec<&str> = gvk.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), gvk.version, gvk.kind)
}

fn subresources(version: &Value, gvk: &GroupVersionKind) -> Vec<Subresource> {
    let verbs = ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut all = Vec::new();
    if object::get(version, &["subresources", "status"]).is_some() {
        all.push(Subresource { name: "status".into(), kind: gvk.clone(), verbs: verbs.clone() });
    }
    if object::get(version, &["subresources", "scale"]).is_some() {
        let kind = GroupVersionKind::new("autoscaling", "v1", "Scale");
        all.push(Subresource { name: "scale".into(), kind, verbs });
    }
    all
}

fn scale(version: &Value) -> Option<Scale> {
    let scale = object::get(version, &["subresources", "scale"])?;
    let path = |field: &str| json_path(object::get_str(scale, &[field]));
    let selector = path("labelSelectorPath");
    Some(Scale {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: (!selector.is_empty()).then_some(selector),
    })
}

fn selectable_fields(version: &Value) -> Vec<SelectableField> {
    object::get_list(version, &["selectableFields"])
        .iter()
        .map(|field| {
            let path = json_path(object::get_str(field, &["jsonPath"]));
            SelectableField { label: path.join("."), path, default: String::new() }
        })
        .collect()
}

/// A simple JSON path (`.spec.replicas`) as names.
fn json_path(text: &str) -> Vec<String> {
    text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn columns(version: &Value) -> Vec<ColumnDefinition> {
    let given = object::get_list(version, &["additionalPrinterColumns"]);
    if given.is_empty() {
        return vec![ColumnDefinition {
            name: "Age".into(),
            kind: "date".into(),
            description: "CreationTimestamp is a timestamp representing the server time when this object was created.".into(),
            json_path: ".metadata.creationTimestamp".into(),
            ..ColumnDefinition::default()
        }];
    }
    given.iter().map(column).collect()
}

fn column(given: &Value) -> ColumnDefinition {
    let text = |field: &str| object::get_str(given, &[field]).to_owned();
    let priority = object::get_i64(given, &["priority"]).unwrap_or(0);
    ColumnDefinition {
        name: text("name"),
        kind: text("type"),
        format: text("format"),
        description: text("description"),
        priority: i32::try_from(priority).unwrap_or(0),
        json_path: text("jsonPath"),
    }
}

fn strings(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
