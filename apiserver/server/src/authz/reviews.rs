//! Questions asked through the API: the SubjectAccessReview family and SelfSubjectRulesReview.

use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes,
    ResourceRule, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use pintle_machinery::{ErrorList, GroupKind, Path};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Attributes, Decision, Rules};
use crate::authn::UserInfo;
use crate::connect::Action;
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

/// May somebody do something?
pub(crate) struct SubjectAccessReviews;
/// May I?
pub(crate) struct SelfSubjectAccessReviews;
/// May somebody do something in this namespace?
pub(crate) struct LocalSubjectAccessReviews;
/// What may I do?
pub(crate) struct SelfSubjectRulesReviews;

pub(crate) fn decode<T: DeserializeOwned>(object: Value) -> ApiResult<T> {
    serde_json::from_value(object).map_err(|error| ApiError::bad_request(error.to_string()))
}

pub(crate) fn encode(object: &impl Serialize) -> ApiResult<Value> {
    serde_json::to_value(object).map_err(ApiError::internal_error)
}

#[async_trait::async_trait]
impl Action for SubjectAccessReviews {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let mut review: SubjectAccessReview = decode(object)?;
        review.status = Some(review_subject(cx, &review.spec).await?);
        encode(&review)
    }
}

#[async_trait::async_trait]
impl Action for LocalSubjectAccessReviews {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let mut review: LocalSubjectAccessReview = decode(object)?;
        let asked = review.spec.resource_attributes.as_ref().and_then(|a| a.namespace.as_deref());
        if asked != Some(cx.namespace.as_str()) {
            return Err(ApiError::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {}",
                cx.namespace
            )));
        }
        review.status = Some(review_subject(cx, &review.spec).await?);
        encode(&review)
    }
}

#[async_trait::async_trait]
impl Action for SelfSubjectAccessReviews {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let mut review: SelfSubjectAccessReview = decode(object)?;
        let spec = &review.spec;
        let question = question(
            cx,
            (*cx.user).clone(),
            spec.resource_attributes.as_ref(),
            spec.non_resource_attributes.as_ref(),
        )?;
        review.status = Some(answer(cx, &question).await);
        encode(&review)
    }
}

#[async_trait::async_trait]
impl Action for SelfSubjectRulesReviews {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let mut review: SelfSubjectRulesReview = decode(object)?;
        let namespace = review.spec.namespace.clone().unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let rules = cx.registry.authorizer().rules_for(&cx.user, &namespace).await;
        review.status = Some(rules_status(rules));
        encode(&review)
    }
}

async fn review_subject(
    cx: &Context,
    spec: &SubjectAccessReviewSpec,
) -> ApiResult<SubjectAccessReviewStatus> {
    let user = UserInfo {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let mut errors = ErrorList::new();
        let why = "at least one of user or group must be specified";
        errors.invalid(Path::new("spec").child("user"), "", why);
        return Err(invalid(cx, &errors));
    }
    let (resource, url) =
        (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    let question = question(cx, user, resource, url)?;
    Ok(answer(cx, &question).await)
}

fn invalid(cx: &Context, errors: &ErrorList) -> ApiError {
    let kind = GroupKind::new("authorization.k8s.io", &*cx.resource.kind);
    ApiError::invalid(&kind, "", errors)
}

fn question(
    cx: &Context,
    user: UserInfo,
    resource: Option<&ResourceAttributes>,
    url: Option<&NonResourceAttributes>,
) -> ApiResult<Attributes> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut errors = ErrorList::new();
    match (resource, url) {
        (Some(resource), None) => Ok(Attributes {
            user,
            verb: text(&resource.verb),
            resource_request: true,
            group: text(&resource.group),
            version: text(&resource.version),
            resource: text(&resource.resource),
            subresource: text(&resource.subresource),
            namespace: text(&resource.namespace),
            name: text(&resource.name),
            path: String::new(),
            field_selector: field_selector(resource),
            label_selector: String::new(),
        }),
        (None, Some(url)) => Ok(Attributes {
            user,
            verb: text(&url.verb),
            path: text(&url.path),
            ..Attributes::default()
        }),
        (Some(_), Some(_)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.invalid(Path::new("spec").child("nonResourceAttributes"), Value::Null, why);
            Err(invalid(cx, &errors))
        }
        (None, None) => {
            let why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(Path::new("spec").child("resourceAttributes"), Value::Null, why);
            Err(invalid(cx, &errors))
        }
    }
}

/// The selector in its query form; requirements of one value each are all that fields know.
fn field_selector(resource: &ResourceAttributes) -> String {
    let Some(selector) = &resource.field_selector else { return String::new() };
    if let Some(raw) = &selector.raw_selector {
        return raw.clone();
    }
    let terms = selector.requirements.iter().flatten().filter_map(|requirement| {
        let value = requirement.values.as_ref()?.first()?;
        match requirement.operator.as_str() {
            "In" => Some(format!("{}={value}", requirement.key)),
            "NotIn" => Some(format!("{}!={value}", requirement.key)),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

async fn answer(cx: &Context, question: &Attributes) -> SubjectAccessReviewStatus {
    let (allowed, denied, reason) = match cx.registry.authorizer().authorize(question).await {
        Decision::Allow(reason) => (true, None, reason),
        Decision::Deny(reason) => (false, Some(true), reason),
        Decision::NoOpinion(reason) => (false, None, reason),
    };
    SubjectAccessReviewStatus {
        allowed,
        denied,
        evaluation_error: None,
        reason: (!reason.is_empty()).then_some(reason),
    }
}

fn rules_status(rules: Rules) -> SubjectRulesReviewStatus {
    let Rules { rules, incomplete, error } = rules;
    let (urls, resources): (Vec<PolicyRule>, Vec<PolicyRule>) =
        rules.into_iter().partition(|rule| rule.non_resource_urls.is_some());
    SubjectRulesReviewStatus {
        evaluation_error: (!error.is_empty()).then_some(error),
        incomplete,
        non_resource_rules: urls
            .into_iter()
            .map(|rule| NonResourceRule {
                non_resource_urls: rule.non_resource_urls,
                verbs: rule.verbs,
            })
            .collect(),
        resource_rules: resources
            .into_iter()
            .map(|rule| ResourceRule {
                api_groups: rule.api_groups,
                resource_names: rule.resource_names,
                resources: rule.resources,
                verbs: rule.verbs,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_requirements_become_a_selector() {
        let attributes = |selector: Value| -> ResourceAttributes {
            serde_json::from_value(json!({"fieldSelector": selector})).unwrap()
        };
        assert_eq!(field_selector(&attributes(json!({"rawSelector": "a=b"}))), "a=b");
        let requirements = json!({"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
            {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
        ]});
        assert_eq!(
            field_selector(&attributes(requirements)),
            "spec.nodeName=n1,status.phase!=Failed"
        );
    }

    #[test]
    fn rules_are_told_apart_by_urls() {
        let rule = |value: Value| serde_json::from_value::<PolicyRule>(value).unwrap();
        let status = rules_status(Rules {
            rules: vec![
                rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]})),
                rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})),
            ],
            incomplete: true,
            error: "some".into(),
        });
        assert_eq!(status.non_resource_rules.len(), 1);
        assert_eq!(status.resource_rules[0].resources, Some(vec!["pods".to_owned()]));
        assert_eq!((status.incomplete, status.evaluation_error.as_deref()), (true, Some("some")));
    }
}
