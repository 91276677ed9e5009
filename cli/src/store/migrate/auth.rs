//! Roles and users. No store gives passwords away: users that had one are made without, and named,
//! so that somebody gives them new ones.

use anyhow::Context;
use pintle_proto::authpb::UserAddOptions;
use pintle_proto::etcdserverpb as pb;
use tonic::Code;

use super::side::Side;

/// Copies what there is; what to tell of it.
pub(super) async fn copy(source: &mut Side, target: &mut Side) -> anyhow::Result<String> {
    let roles = source.auth.role_list(pb::AuthRoleListRequest {}).await;
    let roles = match roles {
        Ok(roles) => roles.into_inner().roles,
        Err(status) if status.code() == Code::Unimplemented => Vec::new(),
        Err(status) => return Err(status).context("reading the source's roles"),
    };
    for role in &roles {
        copy_role(source, target, role).await.with_context(|| format!("role {role:?}"))?;
    }
    let users = source.auth.user_list(pb::AuthUserListRequest {}).await;
    let users = match users {
        Ok(users) => users.into_inner().users,
        Err(status) if status.code() == Code::Unimplemented => Vec::new(),
        Err(status) => return Err(status).context("reading the source's users"),
    };
    for user in &users {
        copy_user(source, target, user).await.with_context(|| format!("user {user:?}"))?;
    }
    let enabled = match source.auth.auth_status(pb::AuthStatusRequest {}).await {
        Ok(status) => status.into_inner().enabled,
        Err(_) => false,
    };
    Ok(describe(&roles, &users, enabled))
}

fn describe(roles: &[String], users: &[String], enabled: bool) -> String {
    if roles.is_empty() && users.is_empty() {
        return String::new();
    }
    let mut text = format!("{} roles and {} users were copied\n", roles.len(), users.len());
    if !users.is_empty() {
        text += &format!("passwords cannot be read: set those of {}\n", users.join(", "));
    }
    if enabled {
        text += "authentication is on in the source: enable it here when the passwords are set\n";
    }
    text
}

/// An earlier try may have made it already.
fn unless_there<T>(result: Result<T, tonic::Status>) -> Result<(), tonic::Status> {
    match result {
        Err(status) if status.message().ends_with("already exists") => Ok(()),
        other => other.map(drop),
    }
}

async fn copy_role(source: &mut Side, target: &mut Side, role: &str) -> anyhow::Result<()> {
    let request = pb::AuthRoleGetRequest { role: role.to_owned() };
    let permissions = source.auth.role_get(request).await?.into_inner().perm;
    let name = role.to_owned();
    unless_there(target.auth.role_add(pb::AuthRoleAddRequest { name }).await)?;
    for permission in permissions {
        let (name, perm) = (role.to_owned(), Some(permission));
        let request = pb::AuthRoleGrantPermissionRequest { name, perm };
        target.auth.role_grant_permission(request).await?;
    }
    Ok(())
}

async fn copy_user(source: &mut Side, target: &mut Side, user: &str) -> anyhow::Result<()> {
    let request = pb::AuthUserGetRequest { name: user.to_owned() };
    let roles = source.auth.user_get(request).await?.into_inner().roles;
    let request = pb::AuthUserAddRequest {
        name: user.to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    unless_there(target.auth.user_add(request).await)?;
    for role in roles {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role };
        target.auth.user_grant_role(request).await?;
    }
    Ok(())
}
