//! Schemas of the built-in kinds: types and descriptions from the typed API (`schemars`), list and
//! map facts from `builtin/facts.txt` (made by `examples/generate_facts.rs`), and the few defaults
//! that take part in the identity of list items.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{authentication, autoscaling, policy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Definitions, Schema, Type, parse};
use crate::GroupVersionKind;
use crate::resource::rows;

const FACTS: &str = include_str!("builtin/facts.txt");

/// Fields whose default is part of a list item's key: apply must know it when it is left out.
const KEY_DEFAULTS: [(&str, &str, &str); 3] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.PortStatus", "protocol", "TCP"),
];

static DEFINITIONS: LazyLock<Arc<Definitions>> = LazyLock::new(|| Arc::new(build()));

/// The definitions of all built-in kinds, built on first use.
pub fn builtin() -> &'static Arc<Definitions> {
    &DEFINITIONS
}

fn build() -> Definitions {
    let mut definitions = Definitions::default();
    for (name, schema) in generate() {
        let mut schema = parse::parse(&schema);
        reshape(&name, &mut schema);
        definitions.insert(name, schema);
    }
    read_facts(&mut definitions);
    for (definition, field, value) in KEY_DEFAULTS {
        if let Some(schema) = definitions.map.get_mut(definition)
            && let Some(property) = schema.properties.get_mut(field)
        {
            property.default = Some(value.into());
        }
    }
    add_gvks(&mut definitions);
    definitions
}

fn generate() -> serde_json::Map<String, Value> {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    for row in rows() {
        (row.subschema)(&mut generator);
    }
    generator.subschema_for::<autoscaling::v1::Scale>();
    generator.subschema_for::<policy::v1::Eviction>();
    generator.subschema_for::<authentication::v1::TokenRequest>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::APIGroup>();
    generator.subschema_for::<meta::APIGroupList>();
    generator.subschema_for::<meta::APIResourceList>();
    generator.subschema_for::<meta::APIVersions>();
    generator.take_definitions(false)
}

/// Definitions whose `name` the typed API takes for required because it has no use for an empty one.
const NAME_IS_OPTIONAL: [&str; 8] = [
    "io.k8s.api.core.v1.ConfigMapEnvSource",
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.ConfigMapProjection",
    "io.k8s.api.core.v1.ConfigMapVolumeSource",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.SecretEnvSource",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.SecretProjection",
];

/// Kinds whose metadata really is required; the typed API says so of all kinds.
const METADATA_IS_REQUIRED: [&str; 3] = [
    "io.k8s.api.core.v1.Event",
    "io.k8s.api.apiserverinternal.v1alpha1.StorageVersion",
    "io.k8s.api.resource.v1alpha3.ResourcePoolStatusRequest",
];

/// The free-form definitions hold anything; the typed API says so only by the lack of properties.
fn reshape(name: &str, schema: &mut Schema) {
    let free = [
        "apimachinery.pkg.apis.meta.v1.FieldsV1",
        "apimachinery.pkg.runtime.RawExtension",
        "apiextensions.v1.JSON",
        "apiextensions.v1.JSONSchemaPropsOrArray",
        "apiextensions.v1.JSONSchemaPropsOrBool",
        "apiextensions.v1.JSONSchemaPropsOrStringArray",
    ];
    if free.iter().any(|suffix| name.ends_with(suffix)) {
        schema.preserve_unknown_fields = true;
        schema.validations = None;
    }
    // A default, an example or an enum member is any JSON; `items` and the like have several shapes.
    if name.contains(".apiextensions.v1.JSON") && !name.ends_with("JSONSchemaProps") {
        schema.kind = Type::Any;
    }
    if NAME_IS_OPTIONAL.contains(&name) {
        schema.required.retain(|field| field != "name");
    }
    if !METADATA_IS_REQUIRED.contains(&name) {
        schema.required.retain(|field| field != "metadata");
    }
    // A FieldsV1 or raw object is one value to patches and apply.
    if name.ends_with("FieldsV1") || name.ends_with("RawExtension") {
        schema.atomic_map = true;
    }
}

fn read_facts(definitions: &mut Definitions) {
    let mut current: Option<&mut Schema> = None;
    for line in FACTS.lines() {
        match line.strip_prefix(' ') {
            None => current = definitions.map.get_mut(line),
            Some(fact) => {
                if let Some(schema) = current.as_deref_mut() {
                    read_fact(schema, fact);
                }
            }
        }
    }
}

fn read_fact(definition: &mut Schema, line: &str) {
    let mut words = line.split(' ');
    let Some(node) = words.next().and_then(|field| fact_node(definition, field)) else { return };
    for word in words {
        match word.split_once('=') {
            Some(("list", name)) => node.list_type = parse::list_type(name),
            Some(("keys", keys)) => {
                node.list_map_keys = keys.split(',').map(str::to_owned).collect()
            }
            Some(("map", name)) => node.atomic_map = name == "atomic",
            Some(("strategy", words)) => node.patch_strategy = Some(parse::patch_strategy(words)),
            Some(("merge", key)) => node.patch_merge_key = Some(key.to_owned()),
            _ => {}
        }
    }
}

/// `.` is the definition, `field[]` the items and `field{}` the values of a field.
fn fact_node<'a>(definition: &'a mut Schema, field: &str) -> Option<&'a mut Schema> {
    if field == "." {
        return Some(definition);
    }
    if let Some(field) = field.strip_suffix("[]") {
        return definition.properties.get_mut(field)?.items.as_deref_mut();
    }
    if let Some(field) = field.strip_suffix("{}") {
        return definition.properties.get_mut(field)?.additional_properties.as_deref_mut();
    }
    definition.properties.get_mut(field)
}

fn add_gvks(definitions: &mut Definitions) {
    let rows = rows();
    let kinds = rows.iter().map(|row| ((row.definition)(), row.group, row.version, row.kind));
    let bodies = [
        (name::<autoscaling::v1::Scale>(), "autoscaling", "v1", "Scale"),
        (name::<policy::v1::Eviction>(), "policy", "v1", "Eviction"),
        (name::<authentication::v1::TokenRequest>(), "authentication.k8s.io", "v1", "TokenRequest"),
        (name::<meta::DeleteOptions>(), "", "v1", "DeleteOptions"),
        (name::<meta::Status>(), "", "v1", "Status"),
        (name::<meta::APIGroup>(), "", "v1", "APIGroup"),
        (name::<meta::APIGroupList>(), "", "v1", "APIGroupList"),
        (name::<meta::APIResourceList>(), "", "v1", "APIResourceList"),
        (name::<meta::APIVersions>(), "", "v1", "APIVersions"),
    ];
    for (definition, group, version, kind) in kinds.chain(bodies) {
        if let Some(schema) = definitions.map.get_mut(&*definition) {
            schema.gvks.push(GroupVersionKind::new(group, version, kind));
        }
    }
}

fn name<T: schemars::JsonSchema>() -> String {
    T::schema_name().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{ListType, Type};
    use super::*;

    #[test]
    fn facts_reach_the_fields_of_a_pod() {
        let pod = builtin().view("io.k8s.api.core.v1.Pod");
        let containers = pod.property("spec").unwrap().property("containers").unwrap();
        assert_eq!(containers.kind(), Type::Array);
        assert_eq!(containers.list_type(), ListType::Map);
        assert_eq!(containers.patch_merge_key(), Some("name"));
        let ports = containers.items().unwrap().property("ports").unwrap();
        assert_eq!(ports.list_map_keys(), ["containerPort", "protocol"]);
        assert_eq!(ports.patch_merge_key(), Some("containerPort"));
        let protocol = ports.items().unwrap().property("protocol").unwrap();
        assert_eq!(protocol.default(), Some(&Value::from("TCP")));
        let selector = pod.property("spec").unwrap().property("nodeSelector").unwrap();
        assert!(selector.is_atomic_map());
    }

    #[test]
    fn every_reference_resolves() {
        fn walk(definitions: &Definitions, schema: &Schema) {
            if let Some(reference) = &schema.reference {
                assert!(definitions.get(reference).is_some(), "{reference}");
            }
            schema.properties.values().for_each(|s| walk(definitions, s));
            schema.items.iter().for_each(|s| walk(definitions, s));
            schema.additional_properties.iter().for_each(|s| walk(definitions, s));
        }
        let definitions = builtin();
        definitions.iter().for_each(|(_, schema)| walk(definitions, schema));
    }

    #[test]
    fn every_fact_of_a_known_definition_finds_its_field() {
        let mut definitions = Definitions::default();
        for (name, schema) in generate() {
            definitions.insert(name, parse::parse(&schema));
        }
        let mut current = None;
        for line in FACTS.lines() {
            match line.strip_prefix(' ') {
                None => current = definitions.map.get(line).cloned(),
                Some(fact) => {
                    let Some(mut definition) = current.clone() else { continue };
                    let field = fact.split(' ').next().unwrap();
                    assert!(fact_node(&mut definition, field).is_some(), "{fact}");
                }
            }
        }
    }
}
