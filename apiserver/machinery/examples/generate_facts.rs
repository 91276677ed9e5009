//! Generates `src/schema/builtin/facts.txt` from the JSON schema definitions that the Python package
//! `kubernetes-validate` ships: list types, map keys, patch strategies and merge keys of every
//! built-in kind, as one line per field, without prose.
//!
//! ```text
//! pip download --no-deps kubernetes-validate==1.37.0 && unzip kubernetes_validate-*.whl
//! cargo run -p pintle-machinery --example generate_facts -- \
//!   kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json > facts.txt
//! ```

use std::io::Write as _;

use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: generate_facts _definitions.json")?;
    let document: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let definitions = document["$defs"].as_object().ok_or("no $defs in the file")?;
    let mut out = std::io::stdout().lock();
    for (name, definition) in definitions {
        let lines = definition_lines(definition);
        if lines.is_empty() {
            continue;
        }
        writeln!(out, "{name}")?;
        for line in lines {
            writeln!(out, " {line}")?;
        }
    }
    Ok(())
}

fn definition_lines(definition: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let own = facts(definition);
    if !own.is_empty() {
        lines.push(format!(".{own}"));
    }
    for (field, schema) in definition["properties"].as_object().into_iter().flatten() {
        let own = facts(schema);
        if !own.is_empty() {
            lines.push(format!("{field}{own}"));
        }
        for (part, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            let nested = facts(&schema[part]);
            if !nested.is_empty() {
                lines.push(format!("{field}{suffix}{nested}"));
            }
        }
    }
    lines
}

/// The facts of one node as ` key=value` words.
fn facts(schema: &Value) -> String {
    let mut out = String::new();
    let words = [
        ("x-kubernetes-list-type", "list"),
        ("x-kubernetes-list-map-keys", "keys"),
        ("x-kubernetes-map-type", "map"),
        ("x-kubernetes-patch-strategy", "strategy"),
        ("x-kubernetes-patch-merge-key", "merge"),
    ];
    for (extension, word) in words {
        let text = match &schema[extension] {
            Value::String(s) => s.clone(),
            Value::Array(items) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                items.join(",")
            }
            _ => continue,
        };
        out.push_str(&format!(" {word}={text}"));
    }
    out
}
