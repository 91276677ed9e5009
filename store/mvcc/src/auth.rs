//! Users, roles and permissions: which there are, what a command changes about them, and what
//! they allow.
//!
//! An [`Auth`] is the whole of it at one auth revision and never changes; apply makes the next
//! one, which shares everything that stayed the same. Whoever answers a request looks at the
//! newest, once when it begins and once when it has read ([`Reader::authorize`],
//! [`Reader::confirm`]); what a command may do is decided by the one at its place in the log.
//! A user's permissions are merged when they are first asked for.
//!
//! [`Reader::authorize`]: crate::Reader::authorize
//! [`Reader::confirm`]: crate::Reader::confirm

mod authorizer;
mod change;
mod key_set;
mod permissions;
mod published;
mod rows;

use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use pintle_store_api::{AuthError, authpb};

pub use authorizer::{Authorizer, Caller, LeaseKeys};
pub(crate) use permissions::is_range;
pub use published::Permit;
pub(crate) use published::Published;
pub(crate) use rows::Rows;

use crate::Fault;
use crate::database::Database;
use crate::keyspace::Family;
use crate::keyspace::auth::{self, Row};
use permissions::Permissions;

/// The user that must exist, and the role that allows everything.
pub(crate) const ROOT: &str = "root";

/// All users and roles at one auth revision.
#[derive(Clone, Debug)]
pub struct Auth {
    enabled: bool,
    /// Part of the state, as in etcd: a fresh one is at 1, and enabling is no change.
    revision: u64,
    /// Of this process alone: tells any two published states apart.
    generation: u64,
    users: OrdMap<String, Arc<User>>,
    roles: OrdMap<String, Arc<authpb::Role>>,
}

#[derive(Debug)]
struct User {
    stored: authpb::User,
    is_root: bool,
    permissions: OnceLock<Permissions>,
}

impl User {
    fn new(stored: authpb::User) -> Self {
        let is_root = stored.roles.iter().any(|role| role == ROOT);
        Self { stored, is_root, permissions: OnceLock::new() }
    }

    fn has_no_password(&self) -> bool {
        self.stored.options.is_some_and(|options| options.no_password)
    }
}

impl Default for Auth {
    fn default() -> Self {
        let (users, roles) = Default::default();
        Self { enabled: false, revision: 1, generation: 0, users, roles }
    }
}

impl Auth {
    pub(crate) fn load(database: &Database) -> Result<Self, Fault> {
        let mut auth = Self::default();
        let mut stored = database.db().raw_iterator_cf(database.family(Family::Auth));
        stored.seek_to_first();
        while let Some((key, value)) = stored.item() {
            match auth::decode(key, value)? {
                Row::Settings { enabled, revision } => {
                    (auth.enabled, auth.revision) = (enabled, revision);
                }
                Row::User(user) => {
                    drop(auth.users.insert(name(&user.name)?, User::new(user).into()))
                }
                Row::Role(role) => drop(auth.roles.insert(name(&role.name)?, role.into())),
            }
            stored.next();
        }
        stored.status()?;
        Ok(auth)
    }

    /// The same state, told apart from every one before `generation`.
    pub(crate) fn with_generation(self: Arc<Self>, generation: u64) -> Arc<Self> {
        let auth = Arc::unwrap_or_clone(self);
        Arc::new(Self { generation, ..auth })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether requests need a user.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Grows with every change of users, roles and permissions, and when authentication is
    /// disabled.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What the user's password must hash to.
    pub fn password_hash(&self, user: &str) -> Result<&[u8], AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        let user = self.users.get(user).ok_or(AuthError::AuthFailed)?;
        if user.has_no_password() {
            return Err(AuthError::NoPasswordUser);
        }
        Ok(&user.stored.password)
    }

    /// The names of all users, in order.
    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The roles of a user, in order.
    pub fn user(&self, user: &str) -> Result<Vec<String>, AuthError> {
        let user = self.users.get(user).ok_or(AuthError::UserNotFound)?;
        Ok(user.stored.roles.clone())
    }

    /// The names of all roles, in order.
    pub fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// The permissions of a role, by key. The role `root` has them all.
    pub fn role(&self, role: &str) -> Result<Vec<authpb::Permission>, AuthError> {
        let stored = self.roles.get(role).ok_or(AuthError::RoleNotFound)?;
        if role == ROOT {
            let perm_type = authpb::permission::Type::Readwrite.into();
            let range_end = bytes::Bytes::from_static(&[0]);
            return Ok(vec![authpb::Permission { perm_type, range_end, ..Default::default() }]);
        }
        Ok(stored.key_permission.clone())
    }

    fn permissions<'a>(&'a self, user: &'a User) -> &'a Permissions {
        user.permissions.get_or_init(|| {
            let roles = user.stored.roles.iter().filter_map(|role| self.roles.get(role));
            Permissions::merge(roles.map(|role| &**role))
        })
    }
}

fn name(stored: &[u8]) -> Result<String, Fault> {
    String::from_utf8(stored.to_vec()).map_err(|_| Fault::Corrupt { what: "auth name" })
}
