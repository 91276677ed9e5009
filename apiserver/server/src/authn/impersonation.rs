//! `Impersonate-*` headers: acting as somebody else, name by name authorized for who asks.

use http::HeaderMap;
use pintle_machinery::GroupResource;

use super::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, UserInfo};
use crate::authz::{Attributes, Authorizer, Decision};
use crate::error::{ApiError, ApiResult};
use crate::request_info::percent_decode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// What the headers ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: Vec<(String, String)>,
}

/// Applies the headers, or returns `user` unchanged when there are none.
pub(super) async fn impersonate(
    user: UserInfo,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> ApiResult<UserInfo> {
    let Some(wish) = read(headers)? else { return Ok(user) };
    for question in questions(&user, &wish) {
        if let Decision::Allow(_) = authorizer.authorize(&question).await {
            continue;
        }
        let resource = GroupResource::new(&*question.group, &*question.resource);
        let combined = if question.subresource.is_empty() {
            question.resource.clone()
        } else {
            format!("{}/{}", question.resource, question.subresource)
        };
        return Err(ApiError::forbidden(
            &resource,
            &question.name,
            format!(
                "User \"{}\" cannot impersonate resource \"{combined}\" in API group \"{}\"{}",
                user.name,
                question.group,
                if question.namespace.is_empty() {
                    " at the cluster scope".to_owned()
                } else {
                    format!(" in the namespace \"{}\"", question.namespace)
                }
            ),
        ));
    }
    Ok(impersonated(wish))
}

fn read(headers: &HeaderMap) -> ApiResult<Option<Wish>> {
    let text = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let mut wish = Wish {
        user: text(USER).into_iter().next().unwrap_or_default(),
        uid: text(UID).into_iter().next().unwrap_or_default(),
        groups: text(GROUP),
        extra: Vec::new(),
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            let key = percent_decode(key, false);
            wish.extra.extend(text(name.as_str()).into_iter().map(|value| (key.clone(), value)));
        }
    }
    let others = !wish.groups.is_empty() || !wish.extra.is_empty() || !wish.uid.is_empty();
    match (wish.user.is_empty(), others) {
        (true, false) => Ok(None),
        (true, true) => {
            Err(ApiError::bad_request("requested impersonation without impersonating a user"))
        }
        (false, _) => Ok(Some(wish)),
    }
}

fn questions(user: &UserInfo, wish: &Wish) -> Vec<Attributes> {
    let ask = |group: &str, resource: &str, name: &str| Attributes {
        user: user.clone(),
        verb: "impersonate".into(),
        resource_request: true,
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut questions = match service_account(&wish.user) {
        Some((namespace, name)) => {
            vec![Attributes { namespace: namespace.into(), ..ask("", "serviceaccounts", name) }]
        }
        None => vec![ask("", "users", &wish.user)],
    };
    if !wish.uid.is_empty() {
        questions.push(ask("authentication.k8s.io", "uids", &wish.uid));
    }
    questions.extend(wish.groups.iter().map(|group| ask("", "groups", group)));
    questions.extend(wish.extra.iter().map(|(key, value)| Attributes {
        subresource: key.clone(),
        ..ask("authentication.k8s.io", "userextras", value)
    }));
    questions
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn impersonated(wish: Wish) -> UserInfo {
    let mut user =
        UserInfo { name: wish.user, uid: wish.uid, groups: wish.groups, extra: Default::default() };
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.name)
    {
        let namespaced = format!("system:serviceaccounts:{namespace}");
        user.groups = vec!["system:serviceaccounts".into(), namespaced];
    }
    let everybody = if user.name == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
    if !user.in_group(ALL_UNAUTHENTICATED) && !user.in_group(everybody) {
        user.groups.push(everybody.to_owned());
    }
    for (key, value) in wish.extra {
        user.extra.entry(key).or_default().push(value);
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    struct MayImpersonate(&'static str);

    #[async_trait::async_trait]
    impl Authorizer for MayImpersonate {
        async fn authorize(&self, attributes: &Attributes) -> Decision {
            let allowed = self.0.split(' ').any(|resource| resource == attributes.resource);
            if allowed && attributes.verb == "impersonate" {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn admin() -> UserInfo {
        UserInfo { name: "admin".into(), ..UserInfo::default() }
    }

    #[tokio::test]
    async fn without_headers_nothing_changes() {
        let user = impersonate(admin(), &HeaderMap::new(), &MayImpersonate("")).await.unwrap();
        assert_eq!(user, admin());
    }

    #[tokio::test]
    async fn user_groups_uid_and_extra_are_taken_over() {
        let wish = headers(&[
            ("impersonate-user", "eve"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "u1"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]);
        let all = MayImpersonate("users groups uids userextras");
        let user = impersonate(admin(), &wish, &all).await.unwrap();
        assert_eq!(user.name, "eve");
        assert_eq!(user.uid, "u1");
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
        let refused = impersonate(admin(), &wish, &MayImpersonate("users groups uids")).await;
        assert_eq!(refused.unwrap_err().code, 403);
    }

    #[tokio::test]
    async fn a_service_account_gets_its_groups() {
        let wish = headers(&[("impersonate-user", "system:serviceaccount:shop:robot")]);
        let user = impersonate(admin(), &wish, &MayImpersonate("serviceaccounts")).await.unwrap();
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
        );
        let refused = impersonate(admin(), &wish, &MayImpersonate("users")).await.unwrap_err();
        assert!(
            refused.message.contains("cannot impersonate resource \"serviceaccounts\""),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn groups_without_a_user_are_refused() {
        let wish = headers(&[("impersonate-group", "system:masters")]);
        let refused = impersonate(admin(), &wish, &MayImpersonate("groups users")).await;
        assert_eq!(refused.unwrap_err().code, 400);
    }
}
