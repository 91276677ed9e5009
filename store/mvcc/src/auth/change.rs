//! What a command does to users, roles and permissions: etcd's rules, in etcd's order of checks.
//!
//! A command is refused before it has changed anything. It must not depend on anything but the
//! state and itself: passwords arrive hashed.

use std::sync::Arc;

use pintle_proto::raft::Authenticate;
use pintle_proto::raft::auth_command::Change;
use pintle_store_api::{AuthError, authpb, pb};

use super::permissions::is_range;
use super::{Auth, ROOT, Rows, User};

type Done = Result<(), AuthError>;

impl Auth {
    /// Carries out one command and notes what has to be written.
    pub(crate) fn execute(&mut self, change: &Change, rows: &mut Rows) -> Done {
        match change {
            Change::Enable(_) => self.enable(rows),
            Change::Disable(_) => {
                self.disable(rows);
                Ok(())
            }
            Change::Authenticate(request) => self.authenticate(request),
            Change::UserAdd(request) => self.user_add(request, rows),
            Change::UserDelete(request) => self.user_delete(request, rows),
            Change::UserChangePassword(request) => self.user_change_password(request, rows),
            Change::UserGrantRole(request) => self.user_grant_role(request, rows),
            Change::UserRevokeRole(request) => self.user_revoke_role(request, rows),
            Change::RoleAdd(request) => self.role_add(request, rows),
            Change::RoleDelete(request) => self.role_delete(request, rows),
            Change::RoleGrantPermission(request) => self.role_grant_permission(request, rows),
            Change::RoleRevokePermission(request) => self.role_revoke_permission(request, rows),
        }
    }

    fn enable(&mut self, rows: &mut Rows) -> Done {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserNotExist)?;
        if !root.is_root {
            return Err(AuthError::RootRoleNotExist);
        }
        self.enabled = true;
        rows.settings(self.enabled, self.revision);
        Ok(())
    }

    fn disable(&mut self, rows: &mut Rows) {
        if self.enabled {
            self.enabled = false;
            self.commit(rows);
        }
    }

    /// The password was checked before; whether it still is the user's, the asker sees by the
    /// revision.
    fn authenticate(&self, request: &Authenticate) -> Done {
        match self.password_hash(&request.user) {
            Ok(_) => Ok(()),
            Err(AuthError::NotEnabled) => Err(AuthError::NotEnabled),
            Err(_) => Err(AuthError::AuthFailed),
        }
    }

    fn user_add(&mut self, request: &pb::AuthUserAddRequest, rows: &mut Rows) -> Done {
        if request.name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(AuthError::UserAlreadyExist);
        }
        let options = request.options.unwrap_or_default();
        let password = if options.no_password { "" } else { &request.hashed_password };
        let user = authpb::User {
            name: request.name.clone().into(),
            password: password.to_owned().into(),
            roles: Vec::new(),
            options: Some(options),
        };
        self.put_user(&request.name, user, rows);
        self.commit(rows);
        Ok(())
    }

    fn user_delete(&mut self, request: &pb::AuthUserDeleteRequest, rows: &mut Rows) -> Done {
        if self.enabled && request.name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(&request.name).ok_or(AuthError::UserNotFound)?;
        rows.user(&request.name, None);
        self.commit(rows);
        Ok(())
    }

    fn user_change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
        rows: &mut Rows,
    ) -> Done {
        let user = self.users.get(&request.name).ok_or(AuthError::UserNotFound)?;
        let hash = if user.has_no_password() { "" } else { &request.hashed_password };
        let password = hash.to_owned().into();
        let user = authpb::User { password, ..user.stored.clone() };
        self.put_user(&request.name, user, rows);
        self.commit(rows);
        Ok(())
    }

    fn user_grant_role(&mut self, request: &pb::AuthUserGrantRoleRequest, rows: &mut Rows) -> Done {
        let user = self.users.get(&request.user).ok_or(AuthError::UserNotFound)?;
        if request.role != ROOT && !self.roles.contains_key(&request.role) {
            return Err(AuthError::RoleNotFound);
        }
        let mut user = user.stored.clone();
        if let Err(place) = user.roles.binary_search(&request.role) {
            user.roles.insert(place, request.role.clone());
            self.put_user(&request.user, user, rows);
            self.commit(rows);
        }
        Ok(())
    }

    fn user_revoke_role(
        &mut self,
        request: &pb::AuthUserRevokeRoleRequest,
        rows: &mut Rows,
    ) -> Done {
        if self.enabled && request.name == ROOT && request.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get(&request.name).ok_or(AuthError::UserNotFound)?;
        let user = without_role(user, &request.role).ok_or(AuthError::RoleNotGranted)?;
        self.put_user(&request.name, user, rows);
        self.commit(rows);
        Ok(())
    }

    fn role_add(&mut self, request: &pb::AuthRoleAddRequest, rows: &mut Rows) -> Done {
        if request.name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(&request.name) {
            return Err(AuthError::RoleAlreadyExist);
        }
        let name = request.name.clone().into();
        self.put_role(&request.name, authpb::Role { name, key_permission: Vec::new() }, rows);
        self.commit(rows);
        Ok(())
    }

    fn role_delete(&mut self, request: &pb::AuthRoleDeleteRequest, rows: &mut Rows) -> Done {
        if self.enabled && request.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(&request.role).ok_or(AuthError::RoleNotFound)?;
        rows.role(&request.role, None);
        let holders = self
            .users
            .iter()
            .filter_map(|(name, user)| Some((name.clone(), without_role(user, &request.role)?)));
        for (name, user) in Vec::from_iter(holders) {
            self.put_user(&name, user, rows);
        }
        self.commit(rows);
        Ok(())
    }

    /// A grant takes the place of the role's first one from the same key if that has the same end; else
    /// it is one more. So a role may hold several grants on a range, and what counts is their union.
    fn role_grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
        rows: &mut Rows,
    ) -> Done {
        let granted = request.perm.as_ref().ok_or(AuthError::PermissionNotGiven)?;
        if !is_range(&granted.key, &granted.range_end) {
            return Err(AuthError::InvalidManagement);
        }
        let role = self.roles.get(&request.name).ok_or(AuthError::RoleNotFound)?;
        let mut role = authpb::Role::clone(role);
        let permissions = &mut role.key_permission;
        let first = permissions.partition_point(|one| one.key < granted.key);
        match permissions.get_mut(first) {
            Some(known) if known.key == granted.key && known.range_end == granted.range_end => {
                known.perm_type = granted.perm_type;
            }
            _ => {
                let last = permissions.partition_point(|one| one.key <= granted.key);
                permissions.insert(last, granted.clone());
            }
        }
        self.put_role(&request.name, role, rows);
        self.commit(rows);
        Ok(())
    }

    fn role_revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
        rows: &mut Rows,
    ) -> Done {
        let role = self.roles.get(&request.role).ok_or(AuthError::RoleNotFound)?;
        let mut role = authpb::Role::clone(role);
        let before = role.key_permission.len();
        role.key_permission
            .retain(|one| one.key != request.key || one.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        self.put_role(&request.role, role, rows);
        self.commit(rows);
        Ok(())
    }

    fn put_user(&mut self, name: &str, user: authpb::User, rows: &mut Rows) {
        rows.user(name, Some(&user));
        self.users.insert(name.to_owned(), Arc::new(User::new(user)));
    }

    /// The permissions of all who have the role must be merged anew.
    fn put_role(&mut self, name: &str, role: authpb::Role, rows: &mut Rows) {
        rows.role(name, Some(&role));
        self.roles.insert(name.to_owned(), Arc::new(role));
        let has = |user: &User| user.stored.roles.iter().any(|held| held == name);
        let holders = self.users.iter().filter(|(_, user)| has(user));
        let fresh =
            holders.map(|(name, user)| (name.clone(), Arc::new(User::new(user.stored.clone()))));
        for (name, user) in Vec::from_iter(fresh) {
            self.users.insert(name, user);
        }
    }

    fn commit(&mut self, rows: &mut Rows) {
        self.revision += 1;
        rows.settings(self.enabled, self.revision);
    }
}

/// The user with one role less; `None` if it does not have it.
fn without_role(user: &User, role: &str) -> Option<authpb::User> {
    let place = user.stored.roles.iter().position(|held| held == role)?;
    let mut user = user.stored.clone();
    user.roles.remove(place);
    Some(user)
}
