//! The flags about certificates.

use std::path::Path;

use anyhow::bail;
use pintle_store::{TlsFiles, TlsNames, TlsPolicy, TlsVersion, self_signed};

use crate::store::flags::Values;

/// What the flags say of both ports.
pub(super) struct Security {
    pub(super) client: Option<TlsFiles>,
    pub(super) peer: Option<TlsFiles>,
    pub(super) client_policy: TlsPolicy,
    pub(super) peer_policy: TlsPolicy,
}

pub(super) fn read(values: &Values, data_dir: &Path) -> anyhow::Result<Security> {
    let common = common(values)?;
    let client_policy = TlsPolicy {
        crl: values.path("client-crl-file"),
        names: TlsNames { common: Vec::new(), hosts: values.list("client-cert-allowed-hostname") },
        ..common.clone()
    };
    let mut peer_policy = TlsPolicy {
        client_pair: pair(values, "peer-client-cert-file", "peer-client-key-file")?,
        crl: values.path("peer-crl-file"),
        names: TlsNames {
            common: values.list("peer-cert-allowed-cn"),
            hosts: values.list("peer-cert-allowed-hostname"),
        },
        ..common
    };
    client_policy.check()?;
    peer_policy.check()?;
    let mut client = files(values, "")?;
    if client.is_none() && values.switch("auto-tls")? {
        let hosts = hosts(&values.list("listen-client-urls"));
        client = Some(made(values, data_dir, "client", &hosts)?);
    }
    let mut peer = files(values, "peer-")?;
    if peer.is_none() && values.switch("peer-auto-tls")? {
        let hosts = hosts(&values.list("listen-peer-urls"));
        peer = Some(made(values, data_dir, "peer", &hosts)?);
        peer_policy.trust_any_server = true;
    }
    Ok(Security { client, peer, client_policy, peer_policy })
}

/// What holds for both ports.
fn common(values: &Values) -> anyhow::Result<TlsPolicy> {
    let version = |name| -> anyhow::Result<Option<TlsVersion>> {
        Ok(match values.text(name) {
            "" => None,
            text => Some(text.parse()?),
        })
    };
    Ok(TlsPolicy {
        cipher_suites: values.list("cipher-suites"),
        min_version: version("tls-min-version")?,
        max_version: version("tls-max-version")?,
        ..TlsPolicy::default()
    })
}

type Pair = (std::path::PathBuf, std::path::PathBuf);

fn pair(values: &Values, cert: &str, key: &str) -> anyhow::Result<Option<Pair>> {
    match (values.path(cert), values.path(key)) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        _ => bail!("--{cert} and --{key} must both be present or both absent"),
    }
}

/// As in etcd, who names an authority asks for certificates.
fn files(values: &Values, prefix: &str) -> anyhow::Result<Option<TlsFiles>> {
    let name = |suffix: &str| format!("{prefix}{suffix}");
    let ca = values.path(&name("trusted-ca-file"));
    let asks = values.switch(&name("client-cert-auth"))?;
    let Some((cert, key)) = pair(values, &name("cert-file"), &name("key-file"))? else {
        return Ok(None);
    };
    if asks && ca.is_none() {
        bail!("--{prefix}client-cert-auth needs --{prefix}trusted-ca-file");
    }
    Ok(Some(TlsFiles { cert, key, ca }))
}

fn made(
    values: &Values,
    data_dir: &Path,
    port: &str,
    hosts: &[String],
) -> anyhow::Result<TlsFiles> {
    let years = values.number("self-signed-cert-validity")?;
    if years == 0 {
        bail!("selfSignedCertValidity is invalid,it should be greater than 0");
    }
    Ok(self_signed(&data_dir.join("fixtures").join(port), hosts, years)?)
}

/// The hosts of URLs.
fn hosts(urls: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = urls
        .iter()
        .filter_map(|url| {
            let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
            Some(host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty())
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
