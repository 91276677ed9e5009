//! Roles and users. No store gives passwords away, nor does it say who has one: a user gets a random
//! password, which nobody knows, until somebody sets a new one. To make such a user without a password
//! would be wrong: to change it later is then accepted and has no effect, in etcd too.

use std::fmt::Write;

use anyhow::Context;
use pintle_proto::authpb::UserAddOptions;
use pintle_proto::etcdserverpb as pb;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tonic::Code;

use super::side::Side;

/// The role that may do everything. Some stores tell that as a permission on all keys, as which none
/// takes it.
const ROOT: &str = "root";
/// In a password that nobody can guess; twice as many letters, which is less than bcrypt reads.
const PASSWORD_BYTES: usize = 32;

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
    let enabled = match source.auth.auth_status(pb::AuthStatusRequest {}).await {
        Ok(status) => status.into_inner().enabled,
        Err(_) => false,
    };
    let mut locked = Vec::new();
    for user in &users {
        let copied = copy_user(source, target, user).await;
        if copied.with_context(|| format!("user {user:?}"))? == Login::ByNewPassword {
            locked.push(user.as_str());
        }
    }
    Ok(describe(roles.len(), users.len(), &locked, enabled))
}

/// `locked` are the users with a password that nobody knows.
fn describe(roles: usize, users: usize, locked: &[&str], enabled: bool) -> String {
    if roles == 0 && users == 0 {
        return String::new();
    }
    let mut text = format!("{roles} roles and {users} users were copied\n");
    if !locked.is_empty() {
        text += "passwords cannot be read from the source: each of these users has a random one now, \
                 and needs a new one\n";
    }
    for user in locked {
        text += &format!("  etcdctl user passwd {user}\n");
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
    if role == ROOT {
        return Ok(());
    }
    for permission in permissions {
        let (name, perm) = (role.to_owned(), Some(permission));
        let request = pb::AuthRoleGrantPermissionRequest { name, perm };
        target.auth.role_grant_permission(request).await?;
    }
    Ok(())
}

/// How a user can log in where it was copied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    ByNewPassword,
    /// By certificate alone, as in the source.
    WithoutPassword,
}

async fn copy_user(source: &mut Side, target: &mut Side, user: &str) -> anyhow::Result<Login> {
    let request = pb::AuthUserGetRequest { name: user.to_owned() };
    let roles = source.auth.user_get(request).await?.into_inner().roles;
    let login = login(source, user).await?;
    let no_password = login == Login::WithoutPassword;
    let request = pb::AuthUserAddRequest {
        name: user.to_owned(),
        password: if no_password { String::new() } else { random_password()? },
        options: Some(UserAddOptions { no_password }),
        ..Default::default()
    };
    unless_there(target.auth.user_add(request).await)?;
    for role in roles {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role };
        target.auth.user_grant_role(request).await?;
    }
    Ok(login)
}

/// A store only says that a user has no password to whoever tries one. While its authentication is
/// off it says nothing; a random password then does no harm to a user that never had one.
async fn login(source: &mut Side, user: &str) -> anyhow::Result<Login> {
    let (name, password) = (user.to_owned(), random_password()?);
    match source.auth.authenticate(pb::AuthenticateRequest { name, password }).await {
        Err(status) if status.message().ends_with("password was given for no password user") => {
            Ok(Login::WithoutPassword)
        }
        _ => Ok(Login::ByNewPassword),
    }
}

fn random_password() -> anyhow::Result<String> {
    let mut bytes = [0_u8; PASSWORD_BYTES];
    OsRng.try_fill_bytes(&mut bytes).context("the system gives no random numbers")?;
    let mut password = String::with_capacity(2 * PASSWORD_BYTES);
    for byte in bytes {
        write!(password, "{byte:02x}")?;
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_without_a_known_password_is_named_with_the_command_that_sets_one() {
        assert_eq!(describe(0, 0, &[], false), "");
        assert_eq!(describe(1, 1, &[], false), "1 roles and 1 users were copied\n");
        assert_eq!(
            describe(0, 3, &["a", "root"], true),
            "0 roles and 3 users were copied\n\
             passwords cannot be read from the source: each of these users has a random one now, \
             and needs a new one\n  \
             etcdctl user passwd a\n  \
             etcdctl user passwd root\n\
             authentication is on in the source: enable it here when the passwords are set\n"
        );
    }

    #[test]
    fn no_two_passwords_are_the_same() {
        let (one, other) = (random_password().expect("random"), random_password().expect("random"));
        assert_ne!(one, other);
        assert_eq!(one.len(), 64);
    }
}
