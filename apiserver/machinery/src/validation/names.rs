//! Names, label keys and values: DNS-1123 and friends, with upstream's messages.

const DNS1123_LABEL_MAX: usize = 63;
const DNS1123_SUBDOMAIN_MAX: usize = 253;
const QUALIFIED_NAME_MAX: usize = 63;
const LABEL_VALUE_MAX: usize = 63;

const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const ENV_VAR_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_MAP_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What a name of a kind must look like.
pub type NameRule = fn(&str) -> Vec<String>;

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// First and last byte satisfy `edge`, all bytes satisfy `edge` or are in `inner`.
fn framed(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || inner.contains(b))
}

fn check(text: &str, max: usize, ok: bool, message: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > max {
        errors.push(too_long(max));
    }
    if !ok {
        errors.push(message.to_owned());
    }
    errors
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, 63 bytes.
pub fn dns1123_label(name: &str) -> Vec<String> {
    check(name, DNS1123_LABEL_MAX, framed(name, lower_alnum, b"-"), DNS1123_LABEL)
}

/// Labels joined by dots, 253 bytes.
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    let ok = name.split('.').all(|label| framed(label, lower_alnum, b"-"));
    check(name, DNS1123_SUBDOMAIN_MAX, ok, DNS1123_SUBDOMAIN)
}

/// A label that starts with a letter: service names.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let ok = starts && framed(name, lower_alnum, b"-");
    check(name, DNS1123_LABEL_MAX, ok, DNS1035_LABEL)
}

/// A name that may stand in a URL path: RBAC names.
pub fn path_segment(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name == "." || name == ".." {
        errors.push(format!("may not be '{name}'"));
    }
    for illegal in ['/', '%'] {
        if name.contains(illegal) {
            errors.push(format!("may not contain '{illegal}'"));
        }
    }
    errors
}

/// A label or annotation key: `[prefix/]name`.
pub fn qualified_name(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")),
                );
            }
            name
        }
        Some(_) => {
            errors.push("a valid label key must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".to_owned());
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > QUALIFIED_NAME_MAX {
        errors.push(format!("name part {}", too_long(QUALIFIED_NAME_MAX)));
    }
    if !framed(name, |b| b.is_ascii_alphanumeric(), b"-_.") {
        errors.push(QUALIFIED_NAME.to_owned());
    }
    errors
}

/// A label value.
pub fn label_value(value: &str) -> Vec<String> {
    let ok = value.is_empty() || framed(value, |b| b.is_ascii_alphanumeric(), b"-_.");
    check(value, LABEL_VALUE_MAX, ok, LABEL_VALUE)
}

/// The name of an environment variable.
pub fn env_var_name(name: &str) -> Vec<String> {
    let ok = !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    check(name, usize::MAX, ok, ENV_VAR_NAME)
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(key: &str) -> Vec<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let ok = !key.is_empty() && key.bytes().all(legal);
    let mut errors = check(key, DNS1123_SUBDOMAIN_MAX, ok, CONFIG_MAP_KEY);
    if key == "." || key == ".." {
        errors.push(format!("must not be '{key}'"));
    } else if key.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// The name of a port: `IANA_SVC_NAME`.
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push("must be no more than 15 characters".to_owned());
    }
    if !name.bytes().all(|b| lower_alnum(b) || b == b'-') {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_upstream_judges_them() {
        let long = "a".repeat(64);
        let cases: [(NameRule, &[&str], &[&str]); 7] = [
            (dns1123_label, &["a", "a-1", "1"], &["", "A", "-a", "a.", "a.b", &long]),
            (dns1123_subdomain, &["a", "a.b-c.1"], &["", "a..b", ".a", "a_b"]),
            (dns1035_label, &["a1"], &["1a", "a-", ""]),
            (qualified_name, &["a", "A_b.c", "x.io/A"], &["", "/a", "x/", "a/b/c", "X.io/a", "-a"]),
            (label_value, &["", "a", "A-1_.b"], &["-", "a-", "a b", &long]),
            (config_map_key, &["a", ".a", "A_b-c.d"], &["", ".", "..", "..a", "a/b"]),
            (port_name, &["http", "p-1"], &["-a", "a--b", "123", "HTTP", "abcdefghijklmnop"]),
        ];
        for (rule, good, bad) in cases {
            for name in good {
                assert_eq!(rule(name), Vec::<String>::new(), "{name}");
            }
            for name in bad {
                assert!(!rule(name).is_empty(), "{name}");
            }
        }
    }
}
