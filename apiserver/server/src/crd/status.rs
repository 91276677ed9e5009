//! `status` of a definition: accepted names, stored versions, conditions. A pure function.

use pintle_machinery::{Path, object, schema, time};
use serde_json::{Value, json};

use super::names;

/// Whether the objects of a definition are served.
pub(super) fn is_established(definition: &Value) -> bool {
    condition(definition, "Established").is_some_and(|it| it["status"] == "True")
}

/// The status that a definition should have among all others.
pub(super) fn wanted(definition: &Value, all: &[Value]) -> Value {
    let conflict = names::conflict(definition, all);
    let mut status = definition.get("status").cloned().unwrap_or_else(|| json!({}));
    let accepted = match &conflict {
        None => names::completed(definition),
        Some(_) => status
            .get("acceptedNames")
            .cloned()
            .unwrap_or_else(|| json!({"plural": "", "kind": ""})),
    };
    let names_accepted = match &conflict {
        None => state("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some(name) => {
            state("NamesAccepted", false, "NameConflict", &format!("\"{name}\" is already in use"))
        }
    };
    let was = is_established(definition);
    let established = match (was, &conflict, structural_error(definition)) {
        (true, _, _) => state(
            "Established",
            true,
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
        (false, None, None) => state(
            "Established",
            true,
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
        (false, None, Some(error)) => state("Established", false, "NonStructuralSchema", &error),
        (false, Some(_), _) => {
            state("Established", false, "NotAccepted", "not all names are accepted")
        }
    };
    let conditions: Vec<Value> =
        [names_accepted, established].into_iter().map(|new| timed(definition, new)).collect();
    status["acceptedNames"] = accepted;
    status["storedVersions"] = stored_versions(definition).into();
    status["conditions"] = conditions.into();
    status
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    object::get_list(definition, &["status", "conditions"]).iter().find(|it| it["type"] == kind)
}

fn state(kind: &str, holds: bool, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": if holds { "True" } else { "False" },
        "reason": reason,
        "message": message,
    })
}

/// Keeps the time of the last transition, or sets it.
fn timed(definition: &Value, mut new: Value) -> Value {
    let old = condition(definition, new["type"].as_str().unwrap_or_default());
    new["lastTransitionTime"] = match old {
        Some(old) if old["status"] == new["status"] => old["lastTransitionTime"].clone(),
        _ => time::format(jiff::Timestamp::now()).into(),
    };
    new
}

fn stored_versions(definition: &Value) -> Vec<Value> {
    let mut versions = object::get_list(definition, &["status", "storedVersions"]).to_vec();
    let storage = object::get_list(definition, &["spec", "versions"])
        .iter()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    if let Some(storage) = storage.filter(|storage| !versions.contains(storage)) {
        versions.push(storage);
    }
    versions
}

fn structural_error(definition: &Value) -> Option<String> {
    let versions = object::get_list(definition, &["spec", "versions"]);
    versions.iter().enumerate().find_map(|(at, version)| {
        let schema = object::get(version, &["schema", "openAPIV3Schema"])?;
        let path =
            Path::new("spec").child("versions").index(at).child("schema").child("openAPIV3Schema");
        schema::parse_structural(schema, &path).err().map(|errors| errors.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": {"name": "foos.example.com"},
            "spec": {
                "group": "example.com",
                "names": {"plural": "foos", "kind": "Foo"},
                "versions": [{"name": "v1", "storage": true, "served": true}],
            },
        })
    }

    #[test]
    fn a_new_definition_is_established_and_then_left_alone() {
        let mut definition = definition();
        let status = wanted(&definition, &[]);
        assert_eq!(status["storedVersions"], json!(["v1"]));
        assert_eq!(status["acceptedNames"]["listKind"], "FooList");
        definition["status"] = status.clone();
        assert!(is_established(&definition));
        assert_eq!(wanted(&definition, &[]), status);
    }

    #[test]
    fn a_schema_that_is_not_structural_is_not_served() {
        let mut definition = definition();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
            json!({"type": "object", "properties": {"spec": {"properties": {"a": {}}}}});
        definition["status"] = wanted(&definition, &[]);
        assert!(!is_established(&definition));
    }
}
