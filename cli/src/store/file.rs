//! The config file: etcd's YAML, whose keys are the flags. It takes the place of all flags and
//! variables. The sections `client-transport-security` and `peer-transport-security` are spelled out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::flags::{ACCEPTED, Values, find};

/// Keys of a section that are not named like their flags.
const RENAMED: [(&str, &str); 4] = [
    ("allowed-cn", "cert-allowed-cn"),
    ("allowed-cns", "cert-allowed-cn"),
    ("allowed-hostname", "cert-allowed-hostname"),
    ("allowed-hostnames", "cert-allowed-hostname"),
];

/// Flags that Go's YAML reader takes as a number of nanoseconds.
const NANOSECONDS: [&str; 7] = [
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "warning-unary-request-duration",
    "corrupt-check-time",
    "compact-hash-check-time",
    "watch-progress-notify-interval",
];

pub(super) fn read(path: &Path) -> anyhow::Result<Values> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    parse(&text).with_context(named)
}

fn parse(text: &str) -> anyhow::Result<Values> {
    let yaml: BTreeMap<String, Value> = serde_saphyr::from_str(text)?;
    let mut values = Values::default();
    for (key, value) in yaml {
        let prefix = match key.as_str() {
            "client-transport-security" => "",
            "peer-transport-security" => "peer-",
            _ => {
                insert(&mut values, &key, &value)?;
                continue;
            }
        };
        for (key, value) in value.as_object().into_iter().flatten() {
            insert(&mut values, &section_flag(prefix, key), value)?;
        }
    }
    Ok(values)
}

/// The flag behind a key of a section.
fn section_flag(prefix: &str, key: &str) -> String {
    let renamed = RENAMED.iter().find(|(known, _)| *known == key).map(|(_, flag)| *flag);
    match renamed {
        Some(flag) if prefix.is_empty() => format!("client-{flag}"),
        Some(flag) => format!("{prefix}{flag}"),
        None if key == "crl-file" && prefix.is_empty() => "client-crl-file".to_owned(),
        None => format!("{prefix}{key}"),
    }
}

fn insert(values: &mut Values, key: &str, value: &Value) -> anyhow::Result<()> {
    let Some(flag) = find(key) else {
        if ACCEPTED.contains(&key) {
            tracing::info!(key, "accepted without effect");
            return Ok(());
        }
        bail!("unknown key {key:?}");
    };
    let text = match value {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let plain =
                |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            items.iter().map(plain).collect::<Vec<_>>().join(",")
        }
        Value::Object(map) => {
            // feature-gates: a map of names to switches.
            map.iter().map(|(name, on)| format!("{name}={on}")).collect::<Vec<_>>().join(",")
        }
        Value::Number(number) if NANOSECONDS.contains(&flag.name) => {
            let nanos = number.as_u64().with_context(|| format!("invalid value for {key:?}"))?;
            format!("{}s", Duration::from_nanos(nanos).as_secs_f64())
        }
        other => other.to_string(),
    };
    values.0.insert(flag.name, text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_flags_and_sections_are_spelled_out() {
        let values = parse(
            "name: m1\n\
             snapshot-count: 50\n\
             strict-reconfig-check: false\n\
             watch-progress-notify-interval: 5000000000\n\
             log-outputs: [stderr, /tmp/x]\n\
             experimental-max-learners: 2\n\
             max-wals: 9\n\
             client-transport-security:\n  cert-file: c\n  client-cert-auth: true\n  crl-file: r\n\
             peer-transport-security:\n  trusted-ca-file: p\n  allowed-cn: one\n",
        )
        .expect("readable");
        for (flag, expected) in [
            ("name", "m1"),
            ("snapshot-count", "50"),
            ("strict-reconfig-check", "false"),
            ("watch-progress-notify-interval", "5s"),
            ("log-outputs", "stderr,/tmp/x"),
            ("max-learners", "2"),
            ("cert-file", "c"),
            ("client-cert-auth", "true"),
            ("client-crl-file", "r"),
            ("peer-trusted-ca-file", "p"),
            ("peer-cert-allowed-cn", "one"),
        ] {
            assert_eq!(values.text(flag), expected, "{flag}");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = parse("nmae: m1\n").expect_err("misspelt");
        assert!(error.to_string().contains("nmae"), "{error}");
    }
}
