//! Calls of the Auth service.

use pintle_proto::{authpb, etcdserverpb as pb};
use serde::{Deserialize, Serialize};

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is the call of the same name")]
pub enum Auth {
    Enable,
    Disable,
    Status,
    Authenticate { user: String, password: String },
    UserAdd { user: String, password: String, no_password: Option<bool> },
    UserGet { user: String },
    UserList,
    UserDelete { user: String },
    UserChangePassword { user: String, password: String },
    UserGrantRole { user: String, role: String },
    UserRevokeRole { user: String, role: String },
    RoleAdd { role: String },
    RoleGet { role: String },
    RoleList,
    RoleDelete { role: String },
    RoleGrantPermission { role: String, permission: Option<Permission> },
    RoleRevokePermission { role: String, key: String, end: String },
}

/// `Permission`. The type need not be one that there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Permission {
    pub perm_type: i32,
    pub key: String,
    pub end: String,
}

impl Permission {
    /// The message.
    pub fn message(&self) -> authpb::Permission {
        authpb::Permission {
            perm_type: self.perm_type,
            key: self.key.clone().into(),
            range_end: self.end.clone().into(),
        }
    }
}

impl Auth {
    /// The message of `UserAdd`.
    pub fn user_add(
        user: &str,
        password: &str,
        no_password: Option<bool>,
    ) -> pb::AuthUserAddRequest {
        pb::AuthUserAddRequest {
            name: user.to_owned(),
            password: password.to_owned(),
            options: no_password.map(|no_password| authpb::UserAddOptions { no_password }),
            hashed_password: String::new(),
        }
    }
}
