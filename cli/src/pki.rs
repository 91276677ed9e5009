//! The cluster's certificates: one authority signs servers, clients and nodes.
//!
//! Whatever is missing is made; what is there stays, so that a resumed cluster keeps its identity.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::cluster::{API_SERVICE, replace_file};

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Where the certificates of a cluster lie.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    dir: PathBuf,
}

/// Who a certificate speaks for.
struct Subject<'a> {
    common_name: &'a str,
    organization: Option<&'a str>,
    server: bool,
}

impl Pki {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn ca(&self) -> Pair {
        self.pair("ca")
    }

    pub(crate) fn admin(&self) -> Pair {
        self.pair("admin")
    }

    pub(crate) fn member(&self) -> Pair {
        self.pair("member")
    }

    pub(crate) fn scheduler(&self) -> Pair {
        self.pair("scheduler")
    }

    pub(crate) fn controllers(&self) -> Pair {
        self.pair("controllers")
    }

    pub(crate) fn kubelet_client(&self) -> Pair {
        self.pair("apiserver-kubelet-client")
    }

    pub(crate) fn node(&self, name: &str) -> Pair {
        self.pair(&format!("node-{name}"))
    }

    /// The private key that signs service-account tokens (PKCS #8, P-256).
    pub(crate) fn service_account_key(&self) -> PathBuf {
        self.dir.join("sa.key")
    }

    fn pair(&self, name: &str) -> Pair {
        Pair {
            cert: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
        }
    }

    /// Makes what is missing for the control plane and for `nodes`.
    pub(crate) fn ensure(&self, nodes: &[String]) -> anyhow::Result<()> {
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("creating {}", self.dir.display()))?;
        self.ensure_ca()?;
        let masters = Some("system:masters");
        let client =
            |common_name, organization| Subject { common_name, organization, server: false };
        self.ensure_leaf(&self.admin(), &client("kubernetes-admin", masters))?;
        self.ensure_leaf(&self.scheduler(), &client("system:kube-scheduler", None))?;
        self.ensure_leaf(&self.controllers(), &client("system:kube-controller-manager", None))?;
        self.ensure_leaf(
            &self.kubelet_client(),
            &client("kube-apiserver-kubelet-client", masters),
        )?;
        let member = Subject { common_name: "pintle-member", organization: None, server: true };
        self.ensure_leaf(&self.member(), &member)?;
        for node in nodes {
            let common_name = format!("system:node:{node}");
            let subject = Subject {
                common_name: &common_name,
                organization: Some("system:nodes"),
                server: true,
            };
            self.ensure_leaf(&self.node(node), &subject)?;
        }
        let tokens = self.service_account_key();
        if !tokens.exists() {
            replace_file(&tokens, KeyPair::generate()?.serialize_pem().as_bytes(), 0o600)?;
        }
        Ok(())
    }

    fn ensure_ca(&self) -> anyhow::Result<()> {
        let pair = self.ca();
        if pair.cert.exists() {
            return Ok(());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name("pintle-ca", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, CA_DAYS);
        let key = KeyPair::generate()?;
        write_pair(&pair, &params.self_signed(&key)?.pem(), &key)
    }

    fn ensure_leaf(&self, pair: &Pair, subject: &Subject<'_>) -> anyhow::Result<()> {
        if pair.cert.exists() && pair.key.exists() {
            return Ok(());
        }
        let ca = self.ca();
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let ca_key = KeyPair::from_pem(&read(&ca.key)?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&ca.cert)?, ca_key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(subject.common_name, subject.organization);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        if subject.server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names = server_names()?;
        }
        set_validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate()?;
        write_pair(pair, &params.signed_by(&key, &issuer)?.pem(), &key)
    }
}

/// Every name under which a server of the cluster is called: loopback, and the API's service.
fn server_names() -> anyhow::Result<Vec<SanType>> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut all = vec![
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V4(API_SERVICE)),
    ];
    for name in names {
        all.push(SanType::DnsName(name.try_into()?));
    }
    Ok(all)
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from yesterday on, because clocks differ.
fn set_validity(params: &mut CertificateParams, days: i64) {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    params.not_before = date(now.saturating_sub(jiff::Span::new().days(1)));
    params.not_after = date(now.saturating_add(jiff::Span::new().days(days)));
}

fn write_pair(pair: &Pair, cert: &str, key: &KeyPair) -> anyhow::Result<()> {
    replace_file(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
    replace_file(&pair.cert, cert.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_keeps_the_authority_and_adds_nodes() {
        let dir = std::env::temp_dir().join(format!("pintle-pki-{}", std::process::id()));
        let pki = Pki::new(dir.clone());
        pki.ensure(&["node-1".to_owned()]).expect("first");
        let before = fs::read(pki.ca().cert).expect("ca");
        pki.ensure(&["node-1".to_owned(), "node-2".to_owned()]).expect("second");
        assert_eq!(before, fs::read(pki.ca().cert).expect("ca"));
        assert!(pki.node("node-2").cert.exists());
        fs::remove_dir_all(dir).expect("clean up");
    }
}
