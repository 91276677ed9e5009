//! `TokenReview`: whose token is this? `SelfSubjectReview`: who am I?

use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus,
    UserInfo as Reviewed,
};
use serde_json::Value;

use crate::authn::{ALL_AUTHENTICATED, ServiceAccounts, UserInfo};
use crate::authz::reviews::{decode, encode};
use crate::connect::Action;
use crate::error::{ApiError, ApiResult};
use crate::registry::Context;

/// Answers token reviews.
pub(crate) struct TokenReviews {
    accounts: ServiceAccounts,
}

impl TokenReviews {
    pub(crate) fn new(accounts: ServiceAccounts) -> Self {
        Self { accounts }
    }
}

fn reviewed(user: &UserInfo) -> Reviewed {
    Reviewed {
        username: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

#[async_trait::async_trait]
impl Action for TokenReviews {
    async fn create(&self, _cx: &Context, object: Value) -> ApiResult<Value> {
        let mut review: TokenReview = decode(object)?;
        if review.spec.token.is_empty() {
            return Err(ApiError::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let audiences = review.spec.audiences.clone().unwrap_or_default();
        let status = match self.accounts.authenticate(&review.spec.token, &audiences).await {
            Ok(Some((mut user, common))) => {
                user.groups.push(ALL_AUTHENTICATED.to_owned());
                TokenReviewStatus {
                    authenticated: Some(true),
                    user: Some(reviewed(&user)),
                    audiences: Some(common),
                    error: None,
                }
            }
            Ok(None) => TokenReviewStatus::default(),
            Err(error) => {
                TokenReviewStatus { error: Some(error.to_string()), ..TokenReviewStatus::default() }
            }
        };
        review.status = Some(status);
        // The token itself is not sent back.
        review.spec.token.clear();
        encode(&review)
    }
}

/// Answers "who am I".
pub(crate) struct SelfSubjectReviews;

#[async_trait::async_trait]
impl Action for SelfSubjectReviews {
    async fn create(&self, cx: &Context, object: Value) -> ApiResult<Value> {
        let mut review: SelfSubjectReview = decode(object)?;
        review.status = Some(SelfSubjectReviewStatus { user_info: Some(reviewed(&cx.user)) });
        encode(&review)
    }
}
