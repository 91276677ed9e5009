//! The JSONPath subset that printer columns, selectable fields and scale subresources use:
//! `.spec.x[0].y`, `['a\.b']`, `[*]`, `..name` is left out on purpose, filters with `==` and `!=`.

use serde_json::Value;

/// A compiled path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
    All,
    Filter {
        path: Vec<Step>,
        equal: bool,
        value: Value,
    },
    /// `?(@.x)`: items that have the field.
    Has(Vec<Step>),
}

impl JsonPath {
    /// Compiles a path such as `.status.conditions[?(@.type=="Ready")].status`, with or without
    /// surrounding braces or a leading `$`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner);
        let steps = parse_steps(inner.strip_prefix('$').unwrap_or(inner))
            .ok_or_else(|| format!("invalid JSON path {text:?}"))?;
        Ok(Self { steps })
    }

    /// All values the path selects.
    pub fn select<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        select(&self.steps, value)
    }

    /// The plain keys of the path, when it has only keys: `.spec.replicas`.
    pub fn keys(&self) -> Option<Vec<String>> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Key(key) => Some(key.clone()),
                _ => None,
            })
            .collect()
    }
}

fn select<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|v| advance(step, v)).collect();
    }
    found
}

fn advance<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let items = || value.as_array().into_iter().flatten();
    match step {
        Step::Key(key) => value.get(key).into_iter().collect(),
        Step::Index(index) => {
            let list = value.as_array().map_or(&[][..], Vec::as_slice);
            let at = if *index < 0 { list.len() as i64 + index } else { *index };
            usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
        }
        Step::All => match value {
            Value::Object(map) => map.values().collect(),
            _ => items().collect(),
        },
        Step::Filter { path, equal, value } => items()
            .filter(|item| select(path, item).first().is_some_and(|v| (*v == value) == *equal))
            .collect(),
        Step::Has(path) => items().filter(|item| !select(path, item).is_empty()).collect(),
    }
}

fn parse_steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (step, after) = parse_bracket(after)?;
            steps.push(step);
            rest = after;
            continue;
        }
        let after = match rest.strip_prefix('.') {
            Some(after) => after,
            None if steps.is_empty() => rest,
            None => return None,
        };
        if after.is_empty() {
            // A lone dot is the whole object.
            return steps.is_empty().then_some(steps);
        }
        if after.starts_with('[') {
            rest = after;
            continue;
        }
        let (key, after) = parse_key(after);
        if key.is_empty() {
            return None;
        }
        steps.push(if key == "*" { Step::All } else { Step::Key(key) });
        rest = after;
    }
    Some(steps)
}

/// A key up to the next `.` or `[`; a backslash takes the next character as it is.
fn parse_key(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (key, &text[at..]),
            '\\' => key.extend(chars.next().map(|(_, escaped)| escaped)),
            c => key.push(c),
        }
    }
    (key, "")
}

fn parse_bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(after) = text.strip_prefix("?(") {
        let end = after.find(")]")?;
        return Some((parse_filter(&after[..end])?, &after[end + 2..]));
    }
    if let Some(quote @ ('\'' | '"')) = text.chars().next() {
        let close = [quote, ']'].iter().collect::<String>();
        let end = text[1..].find(&close)? + 1;
        let key = text[1..end].replace("\\.", ".");
        return Some((Step::Key(key), &text[end + 2..]));
    }
    let end = text.find(']')?;
    let (inside, after) = (&text[..end], &text[end + 1..]);
    let step = match inside {
        "*" => Step::All,
        number => Step::Index(number.trim().parse().ok()?),
    };
    Some((step, after))
}

fn parse_filter(text: &str) -> Option<Step> {
    let text = text.trim().strip_prefix('@')?;
    let (operator, equal) = if text.contains("==") { ("==", true) } else { ("!=", false) };
    let Some((path, literal)) = text.split_once(operator) else {
        return Some(Step::Has(parse_steps(text.trim())?));
    };
    let literal = literal.trim();
    let value = match literal.strip_prefix('\'').and_then(|l| l.strip_suffix('\'')) {
        Some(quoted) => Value::from(quoted),
        None => serde_json::from_str(literal).ok()?,
    };
    Some(Step::Filter { path: parse_steps(path.trim())?, equal, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_select_what_printer_columns_mean() {
        let object = json!({
            "metadata": {"annotations": {"example.com/x": "y"}},
            "spec": {"replicas": 3, "list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"},
            ]},
        });
        let cases = [
            (".spec.replicas", json!([3])),
            ("{.spec.replicas}", json!([3])),
            ("spec.replicas", json!([3])),
            (".spec.list[1].n", json!([2])),
            (".spec.list[-1].n", json!([2])),
            (".spec.list[*].n", json!([1, 2])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Synced')].status", json!(["False"])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["False"])),
            (".spec.list[?(@.n)].n", json!([1, 2])),
            (".metadata.annotations['example\\.com/x']", json!(["y"])),
            (".metadata.annotations.example\\.com/x", json!(["y"])),
            (".spec.none.x", json!([])),
        ];
        for (path, expected) in cases {
            let path = JsonPath::parse(path).unwrap();
            let found: Vec<Value> = path.select(&object).into_iter().cloned().collect();
            assert_eq!(Value::from(found), expected, "{path:?}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [".a[", ".a[x]", ".a..b", ".a[?(x)]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
