//! Client certificates: the subject's common name is the user, its organizations are the groups.
//!
//! TLS has verified the chain against the client CA before it arrives here.

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{InvalidCredentials, UserInfo};

/// The user of a verified leaf certificate; `None` when it names nobody.
pub(super) fn user_of(leaf: &CertificateDer<'_>) -> Result<Option<UserInfo>, InvalidCredentials> {
    let (_, certificate) = X509Certificate::from_der(leaf)
        .map_err(|error| InvalidCredentials(format!("x509: malformed certificate: {error}")))?;
    let subject = certificate.subject();
    let Some(name) = subject.iter_common_name().last().and_then(|cn| cn.as_str().ok()) else {
        return Ok(None);
    };
    if name.is_empty() {
        return Ok(None);
    }
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(str::to_owned)
        .collect();
    let credential = format!("X509SHA256={}", hex(&Sha256::digest(leaf)));
    Ok(Some(UserInfo {
        name: name.to_owned(),
        groups,
        extra: [("authentication.kubernetes.io/credential-id".to_owned(), vec![credential])].into(),
        ..UserInfo::default()
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(name: Option<&str>, organizations: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        for organization in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn common_name_is_the_user_and_organizations_are_groups() {
        let user =
            user_of(&certificate(Some("system:node:n1"), &["system:nodes"])).unwrap().unwrap();
        assert_eq!(user.name, "system:node:n1");
        assert_eq!(user.groups, ["system:nodes"]);
        let id = &user.extra["authentication.kubernetes.io/credential-id"][0];
        assert_eq!(id.len(), "X509SHA256=".len() + 64);
    }

    #[test]
    fn a_certificate_without_a_name_is_nobody() {
        assert_eq!(user_of(&certificate(None, &["system:masters"])).unwrap(), None);
    }

    #[test]
    fn garbage_is_refused() {
        assert!(user_of(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
