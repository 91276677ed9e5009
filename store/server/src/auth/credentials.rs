//! What a request shows of its sender.

use std::sync::Arc;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};
use rustls_pki_types::CertificateDer;

/// Where etcd's gRPC clients put their token.
const TOKEN: &str = "token";
/// Set by a gateway. It connects with its own certificate, which says nothing of its clients.
const GATEWAY: &str = "grpcgateway-accept";

/// The verified certificate of a connection, put by the listener beside each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate(pub(crate) Arc<str>);

/// The common name of a certificate's subject; empty if it has none.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject().iter_common_name();
    let name = names.last().map_or(Ok(""), |name| name.as_str());
    name.ok().map(Arc::from)
}

/// A token or the name on a certificate, as the request brought it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    token: Option<HeaderValue>,
    common_name: Option<Arc<str>>,
}

impl Credentials {
    pub(crate) fn new(headers: &HeaderMap, extensions: &http::Extensions) -> Self {
        let token = headers.get(TOKEN).or_else(|| headers.get(AUTHORIZATION)).cloned();
        let certificate = extensions.get::<ClientCertificate>();
        let certificate = certificate.filter(|_| !headers.contains_key(GATEWAY));
        let common_name = certificate.map(|ClientCertificate(name)| Arc::clone(name));
        let token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        Self { token, common_name }
    }

    /// The token; one that is no text is none that anybody was given.
    pub(super) fn token(&self) -> Option<&str> {
        let token = self.token.as_ref()?.to_str().unwrap_or("");
        Some(token.strip_prefix("Bearer ").unwrap_or(token))
    }

    pub(super) fn common_name(&self) -> Option<&Arc<str>> {
        self.common_name.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(headers: &[(&'static str, &'static str)], name: Option<&str>) -> Credentials {
        let mut map = HeaderMap::new();
        for (key, value) in headers {
            map.insert(*key, HeaderValue::from_static(value));
        }
        let mut extensions = http::Extensions::new();
        if let Some(name) = name {
            extensions.insert(ClientCertificate(name.into()));
        }
        Credentials::new(&map, &extensions)
    }

    #[test]
    fn a_token_is_found_under_both_names() {
        assert_eq!(credentials(&[("token", "a.1")], None).token(), Some("a.1"));
        assert_eq!(credentials(&[("authorization", "a.1")], None).token(), Some("a.1"));
        assert_eq!(credentials(&[("authorization", "Bearer a.1")], None).token(), Some("a.1"));
        let both = credentials(&[("authorization", "b.2"), ("token", "a.1")], None);
        assert_eq!(both.token(), Some("a.1"));
        assert_eq!(credentials(&[], None).token(), None);
    }

    #[test]
    fn the_certificate_of_a_gateway_names_nobody() {
        let own = credentials(&[], Some("alice"));
        assert_eq!(own.common_name().map(|name| &**name), Some("alice"));
        let gateway = credentials(&[("grpcgateway-accept", "*/*")], Some("gateway"));
        assert_eq!(gateway.common_name(), None);
    }

    #[test]
    fn a_token_is_not_printed() {
        let shown = format!("{:?}", credentials(&[("token", "secret.1")], None));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_common_name_is_read_from_the_subject() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/certificates/member.crt");
        let pem = std::fs::read(path).expect("a certificate");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        let name = common_name(&CertificateDer::from(pem.contents));
        assert_eq!(name.as_deref(), Some("test member"));
        assert_eq!(common_name(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
