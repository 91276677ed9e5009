//! `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction`: who may approve
//! and sign for which signer, and that no request for a client certificate asks for `system:masters`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pintle_machinery::object;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::authn::SYSTEM_PRIVILEGED_GROUP;
use crate::authz::{Attributes as Question, Decision};
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

fn forbidden(cx: &Context, why: impl std::fmt::Display) -> ApiError {
    ApiError::forbidden(&cx.group_resource(), &cx.name, why)
}

/// Whether the user may `verb` for the signer, by its name or by its domain.
async fn may(cx: &Context, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let question = Question {
            user: (*cx.user).clone(),
            verb: verb.to_owned(),
            resource_request: true,
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..Question::default()
        };
        if let Decision::Allow(_) = cx.registry.authorizer().authorize(&question).await {
            return true;
        }
    }
    false
}

pub(super) struct CertificateApproval;

#[async_trait::async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Update && cx.is(GROUP, RESOURCE, "approval")
    }

    async fn validate(&self, cx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(old) = attributes.old_object else { return Ok(()) };
        let signer = object::get_str(old, &["spec", "signerName"]);
        if may(cx, "approve", signer).await {
            return Ok(());
        }
        Err(forbidden(
            cx,
            format!("user not permitted to approve requests with signerName \"{signer}\""),
        ))
    }
}

pub(super) struct CertificateSigning;

#[async_trait::async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Update && cx.is(GROUP, RESOURCE, "status")
    }

    async fn validate(&self, cx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
        let (Some(old), Some(new)) = (attributes.old_object, attributes.object.as_deref()) else {
            return Ok(());
        };
        if !signs(new, old) {
            return Ok(());
        }
        let signer = object::get_str(old, &["spec", "signerName"]);
        if may(cx, "sign", signer).await {
            return Ok(());
        }
        Err(forbidden(
            cx,
            format!("user not permitted to sign requests with signerName \"{signer}\""),
        ))
    }
}

/// Whether the update issues a certificate or declares that it failed.
fn signs(new: &Value, old: &Value) -> bool {
    let certificate = |csr| object::get(csr, &["status", "certificate"]).cloned();
    let failed = |csr| {
        object::get_list(csr, &["status", "conditions"]).iter().any(|c| c["type"] == "Failed")
    };
    certificate(new) != certificate(old) || failed(new) != failed(old)
}

pub(super) struct CertificateSubjectRestriction;

#[async_trait::async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, cx: &Context, operation: Operation) -> bool {
        operation == Operation::Create && cx.is(GROUP, RESOURCE, "")
    }

    async fn validate(&self, cx: &Context, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(csr) = attributes.object.as_deref() else { return Ok(()) };
        let client = "kubernetes.io/kube-apiserver-client";
        if object::get_str(csr, &["spec", "signerName"]) != client {
            return Ok(());
        }
        let organizations = organizations(object::get_str(csr, &["spec", "request"]))
            .map_err(|why| forbidden(cx, why))?;
        if organizations.iter().any(|organization| organization == SYSTEM_PRIVILEGED_GROUP) {
            return Err(forbidden(
                cx,
                format!(
                    "use of {client} signer with {SYSTEM_PRIVILEGED_GROUP} group is not allowed"
                ),
            ));
        }
        Ok(())
    }
}

/// The organizations that a base64 PEM request asks for.
fn organizations(request: &str) -> Result<Vec<String>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("could not parse CSR: {why}");
    let pem = STANDARD.decode(request).map_err(|error| failed(&error))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|error| failed(&error))?;
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| failed(&e))?;
    let subject = &csr.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn organizations_of_a_request_are_read() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let pem =
            params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        assert_eq!(organizations(&STANDARD.encode(pem)).unwrap(), ["system:masters"]);
        assert!(organizations("bm90IGEgY3Ny").is_err());
    }

    #[test]
    fn issuing_and_failing_are_signing() {
        let old = json!({"status": {"conditions": [{"type": "Approved"}]}});
        assert!(!signs(&old, &old));
        assert!(signs(&json!({"status": {"certificate": "x"}}), &old));
        assert!(signs(&json!({"status": {"conditions": [{"type": "Failed"}]}}), &old));
    }
}
