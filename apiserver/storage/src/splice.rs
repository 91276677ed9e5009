//! Puts the resource version into encoded JSON without decoding it.
//!
//! Objects are stored without one (the store's revision is the truth), and every reader wants it.

use std::ops::Range;

/// `json` with `metadata.resourceVersion` set; `None` when it is no object with a metadata object.
pub(crate) fn with_resource_version(json: &[u8], revision: i64) -> Option<Vec<u8>> {
    let metadata = member(json, 0, b"metadata")?;
    let start = metadata.start;
    if json.get(start) != Some(&b'{') {
        return None;
    }
    let version = format!("\"{revision}\"");
    let mut out = Vec::with_capacity(json.len() + version.len() + 20);
    if let Some(old) = member(json, start, b"resourceVersion") {
        out.extend_from_slice(&json[..old.start]);
        out.extend_from_slice(version.as_bytes());
        out.extend_from_slice(&json[old.end..]);
        return Some(out);
    }
    let empty = json[start + 1..metadata.end - 1].iter().all(u8::is_ascii_whitespace);
    out.extend_from_slice(&json[..=start]);
    out.extend_from_slice(b"\"resourceVersion\":");
    out.extend_from_slice(version.as_bytes());
    if !empty {
        out.push(b',');
    }
    out.extend_from_slice(&json[start + 1..]);
    Some(out)
}

/// Where the value of `key` is, in the object that begins at or after `at`.
fn member(json: &[u8], at: usize, key: &[u8]) -> Option<Range<usize>> {
    let mut at = skip_space(json, at);
    if json.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_space(json, at + 1);
    while json.get(at) == Some(&b'"') {
        let name_end = skip_string(json, at)?;
        let name = &json[at + 1..name_end - 1];
        at = skip_space(json, name_end);
        if json.get(at) != Some(&b':') {
            return None;
        }
        let value = skip_space(json, at + 1);
        let end = skip_value(json, value)?;
        if name == key {
            return Some(value..end);
        }
        at = skip_space(json, end);
        if json.get(at) != Some(&b',') {
            return None;
        }
        at = skip_space(json, at + 1);
    }
    None
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// `at` is on the opening quote; the answer is after the closing one.
fn skip_string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn skip_value(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match json.get(at)? {
            b'"' => at = skip_string(json, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                while json.get(at).is_some_and(|byte| !b",}] \n\r\t".contains(byte)) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_lands_in_the_outer_metadata_only() {
        let cases = [
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#),
            (r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"resourceVersion":"7","name":"a"}}"#),
            (
                r#"{"data":{"metadata":"{\"}"},"list":[1,{"metadata":{}},-2.5e3,null],"metadata" : { "name":"a" }}"#,
                r#"{"data":{"metadata":"{\"}"},"list":[1,{"metadata":{}},-2.5e3,null],"metadata" : {"resourceVersion":"7", "name":"a" }}"#,
            ),
            (
                r#"{"metadata":{"a":{"resourceVersion":"1"},"resourceVersion":"2","z":true}}"#,
                r#"{"metadata":{"a":{"resourceVersion":"1"},"resourceVersion":"7","z":true}}"#,
            ),
        ];
        for (stored, expected) in cases {
            let got = with_resource_version(stored.as_bytes(), 7).expect("has metadata");
            assert_eq!(String::from_utf8(got).expect("text"), expected);
        }
    }

    #[test]
    fn what_has_no_metadata_object_is_refused() {
        for broken in
            ["", "[]", "{}", r#"{"metadata":1}"#, r#"{"metadata":{"#, r#"{"a":"unfinished"#]
        {
            assert_eq!(with_resource_version(broken.as_bytes(), 7), None, "{broken}");
        }
    }
}
