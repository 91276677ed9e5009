//! OpenAPI v3 and v2 documents of what is served: `explain`, client-side apply and validation read
//! them.
//!
//! A v3 document covers one group version; the v2 document covers everything. Both carry `paths`
//! (parameters, content types, actions, kinds) and schemas with Kubernetes' extensions. The server
//! caches the documents: building one walks every schema it holds.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::resource::{GroupVersion, Resource, RestMapper};
use crate::schema::{Definitions, Schema};

mod operation;
mod paths;
mod render;

use render::Dialect;

/// `info` of every document.
fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.37.0"})
}

/// `/openapi/v3`: the index of documents, each with the hash of its content.
pub fn v3_index(documents: &[(GroupVersion, String)]) -> Value {
    let paths = documents.iter().map(|(gv, hash)| {
        let path = gv.url_path();
        let url = format!("/openapi/v3/{path}?hash={hash}");
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": Value::Object(paths.collect())})
}

/// `/openapi/v3/apis/GROUP/VERSION`.
pub fn v3_document(mapper: &RestMapper, gv: &GroupVersion) -> Value {
    let dialect = Dialect::V3;
    let resources = mapper.group_version(gv);
    let mut paths = Map::new();
    let mut schemas = BTreeMap::new();
    for resource in &resources {
        paths::add(resource, dialect, &mut paths);
        add_schemas(resource, dialect, &mut schemas);
    }
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {
            "schemas": Value::Object(schemas.into_iter().collect()),
            "securitySchemes": {"BearerToken": bearer_token()},
        },
    })
}

/// `/openapi/v2`.
pub fn v2_document(mapper: &RestMapper) -> Value {
    let dialect = Dialect::V2;
    let mut paths = Map::new();
    let mut schemas = BTreeMap::new();
    for resource in mapper.resources() {
        paths::add(resource, dialect, &mut paths);
        add_schemas(resource, dialect, &mut schemas);
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": Value::Object(schemas.into_iter().collect()),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

fn bearer_token() -> Value {
    json!({
        "type": "apiKey", "in": "header", "name": "authorization",
        "description": "Bearer Token authentication",
    })
}

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The name of the list's definition: built-in lists are `PodList`, as custom ones.
fn list_definition(resource: &Resource) -> String {
    match resource.definition.rsplit_once('.') {
        Some((prefix, _)) => format!("{prefix}.{}", resource.list_kind),
        None => resource.list_kind.clone(),
    }
}

/// Adds the schemas that a resource's paths refer to, with all that they refer to.
fn add_schemas(resource: &Resource, dialect: Dialect, out: &mut BTreeMap<String, Value>) {
    let builtin = crate::schema::builtin();
    add_definition(&resource.definitions, &resource.definition, dialect, out);
    for meta in [DELETE_OPTIONS, STATUS, LIST_META] {
        add_definition(builtin, meta, dialect, out);
    }
    for subresource in &resource.subresources {
        if let Some(name) = builtin.by_gvk(&subresource.kind) {
            add_definition(builtin, name, dialect, out);
        }
    }
    if resource.has_verb("list") {
        out.entry(list_definition(resource)).or_insert_with(|| list_schema(resource, dialect));
    }
}

fn add_definition(
    definitions: &Definitions,
    name: &str,
    dialect: Dialect,
    out: &mut BTreeMap<String, Value>,
) {
    if out.contains_key(name) {
        return;
    }
    let Some(schema) = definitions.get(name) else { return };
    out.insert(name.to_owned(), render::definition(name, schema, dialect));
    for reference in references(schema) {
        add_definition(definitions, reference, dialect, out);
    }
}

fn references(schema: &Schema) -> Vec<&str> {
    let mut found: Vec<&str> = schema.reference.as_deref().into_iter().collect();
    found.extend(schema.properties.values().flat_map(references));
    found.extend(schema.items.iter().flat_map(|s| references(s)));
    found.extend(schema.additional_properties.iter().flat_map(|s| references(s)));
    found
}

fn list_schema(resource: &Resource, dialect: Dialect) -> Value {
    let (kind, list_kind) = (&resource.kind, &resource.list_kind);
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "description": format!("{list_kind} is a list of {kind}"),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object."),
            "kind": text("Kind is a string value representing the REST resource this object represents."),
            "metadata": dialect.reference(LIST_META),
            "items": {
                "description": format!("Items is the list of {kind}"),
                "type": "array",
                "items": dialect.reference(&resource.definition),
            },
        },
        "x-kubernetes-group-version-kind": [
            {"group": resource.group, "version": resource.version, "kind": list_kind},
        ],
    })
}

#[cfg(test)]
mod tests;
