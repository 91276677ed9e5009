//! What is allowed on a port beyond its certificates.

use std::io;
use std::path::PathBuf;

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};

use super::names::Names;

/// A version of TLS that is still safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl std::str::FromStr for TlsVersion {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        match text {
            "TLS1.2" => Ok(Self::Tls12),
            "TLS1.3" => Ok(Self::Tls13),
            _ => Err(refuse(format!("unexpected TLS version {text:?}"))),
        }
    }
}

/// Limits on whom a port talks to, and how.
#[derive(Clone, Debug, Default)]
pub struct TlsPolicy {
    /// Certificate and key for calls to others, where it is not the server's own.
    pub client_pair: Option<(PathBuf, PathBuf)>,
    /// Certificates that count no longer, as PEM or DER.
    pub crl: Option<PathBuf>,
    /// Names of which the other side must have one.
    pub names: Names,
    /// The suites of TLS 1.2, under their IANA names; empty: all that are safe.
    pub cipher_suites: Vec<String>,
    /// The oldest version; 1.2 unless it is set.
    pub min_version: Option<TlsVersion>,
    /// The newest version.
    pub max_version: Option<TlsVersion>,
    /// Believes every server: for members with certificates that they signed themselves.
    pub trust_any_server: bool,
}

fn refuse(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl TlsPolicy {
    /// Refuses what contradicts itself, in etcd's words.
    pub fn check(&self) -> io::Result<()> {
        self.provider()?;
        self.versions()?;
        self.names.check()?;
        if !self.cipher_suites.is_empty() && self.min_version == Some(TlsVersion::Tls13) {
            return Err(refuse(
                "cipher suites cannot be configured when only TLS1.3 is enabled".to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn versions(&self) -> io::Result<Vec<&'static SupportedProtocolVersion>> {
        let min = self.min_version.unwrap_or(TlsVersion::Tls12);
        let max = self.max_version.unwrap_or(TlsVersion::Tls13);
        if min > max {
            return Err(refuse("min version is greater than max version".to_owned()));
        }
        let all = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
        let allowed = all.into_iter().filter(|(version, _)| (min..=max).contains(version));
        Ok(allowed.map(|(_, version)| version).collect())
    }

    /// Ring with the suites that are allowed. Those of TLS 1.3 are not configurable, as in Go.
    pub(super) fn provider(&self) -> io::Result<CryptoProvider> {
        let mut provider = ring::default_provider();
        if self.cipher_suites.is_empty() {
            return Ok(provider);
        }
        let name =
            |suite: &rustls::SupportedCipherSuite| iana(suite.suite().as_str().unwrap_or(""));
        for wanted in &self.cipher_suites {
            let wanted = canonical(wanted);
            if !provider.cipher_suites.iter().any(|suite| name(suite) == wanted) {
                return Err(refuse(format!("unexpected TLS cipher suite {wanted:?}")));
            }
        }
        provider.cipher_suites.retain(|suite| {
            suite.tls13().is_some()
                || self.cipher_suites.iter().any(|wanted| canonical(wanted) == name(suite))
        });
        Ok(provider)
    }
}

/// rustls tells the suites of 1.3 by another prefix.
fn iana(name: &str) -> String {
    name.replacen("TLS13_", "TLS_", 1)
}

/// Go once named the ChaCha suites without their hash.
fn canonical(name: &str) -> String {
    match name.strip_suffix("_POLY1305") {
        Some(_) => format!("{name}_SHA256"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_the_bounds() {
        let policy = |min_version, max_version| TlsPolicy {
            min_version,
            max_version,
            ..TlsPolicy::default()
        };
        let count = |policy: TlsPolicy| policy.versions().map(|versions| versions.len());
        let (old, new) = (Some(TlsVersion::Tls12), Some(TlsVersion::Tls13));
        assert_eq!(count(policy(None, None)).expect("default"), 2);
        assert_eq!(count(policy(new, None)).expect("newest"), 1);
        assert_eq!(count(policy(None, old)).expect("oldest"), 1);
        count(policy(new, old)).expect_err("nothing is between them");
        "TLS1.1".parse::<TlsVersion>().expect_err("not safe any more");
    }

    #[test]
    fn suites_are_chosen_by_their_iana_names() {
        let policy = |suites: &[&str]| TlsPolicy {
            cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            ..TlsPolicy::default()
        };
        let chosen = policy(&[
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        ]);
        let provider = chosen.provider().expect("known suites");
        let old = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
        assert_eq!(old, 2);
        assert!(provider.cipher_suites.len() > old, "TLS 1.3 keeps its own");
        let error = policy(&["TLS_RSA_WITH_RC4_128_SHA"]).check().expect_err("unsafe");
        assert!(error.to_string().contains("unexpected TLS cipher suite"), "{error}");
        let mut newest = policy(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        newest.min_version = Some(TlsVersion::Tls13);
        newest.check().expect_err("nothing to configure");
    }
}
