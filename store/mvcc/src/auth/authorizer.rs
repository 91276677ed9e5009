//! One recursive look over a request: may this caller do all of it?
//!
//! Used for reads by whoever answers them, and for writes at their place in the log. What is
//! asked of an operation does not depend on where it stands: alone, in a branch of a transaction
//! (taken or not) or in a nested one.

use bytes::Bytes;
use pintle_proto::raft;
use pintle_store_api::pb::request_op::Request;
use pintle_store_api::{AuthError, LeaseId, pb};

use super::permissions::{Access, Permissions};
use super::{Auth, User};
use crate::QueryError;

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caller<'a> {
    /// The server itself, or code of its process: may do everything.
    Server,
    /// Somebody without credentials.
    #[default]
    Anonymous,
    /// Whom a token or a certificate names.
    User {
        /// The name, which may be that of no user.
        name: &'a str,
        /// The auth revision that the credentials go by; 0 is none.
        revision: u64,
    },
}

impl<'a> From<Option<&'a raft::Caller>> for Caller<'a> {
    fn from(caller: Option<&'a raft::Caller>) -> Self {
        match caller {
            Some(caller) if caller.server => Self::Server,
            // Nothing said is as good as nothing there.
            Some(caller) if caller.user.is_empty() && caller.auth_revision == 0 => Self::Anonymous,
            None => Self::Anonymous,
            Some(caller) => Self::User { name: &caller.user, revision: caller.auth_revision },
        }
    }
}

/// What a caller may do with keys.
enum Keys<'a> {
    All,
    Some(&'a Permissions),
    None(AuthError),
}

/// The rights of one caller at one auth revision.
pub struct Authorizer<'a> {
    auth: &'a Auth,
    caller: Caller<'a>,
    keys: Keys<'a>,
}

impl Auth {
    /// What `caller` may do.
    pub fn authorizer<'a>(&'a self, caller: Caller<'a>) -> Authorizer<'a> {
        Authorizer { auth: self, caller, keys: self.keys(caller) }
    }

    fn keys<'a>(&'a self, caller: Caller<'a>) -> Keys<'a> {
        match caller {
            _ if !self.enabled => Keys::All,
            Caller::Server => Keys::All,
            Caller::Anonymous | Caller::User { revision: 0, .. } => {
                Keys::None(AuthError::UserEmpty)
            }
            Caller::User { revision, .. } if revision < self.revision => {
                Keys::None(AuthError::OldRevision)
            }
            Caller::User { name, .. } => match self.users.get(name) {
                None => Keys::None(AuthError::PermissionDenied),
                Some(user) if user.is_root => Keys::All,
                Some(user) => Keys::Some(self.permissions(user)),
            },
        }
    }
}

type Allowed = Result<(), AuthError>;

impl Authorizer<'_> {
    /// Any credentials will do.
    pub fn login(&self) -> Allowed {
        match self.caller {
            Caller::Anonymous if self.auth.enabled => Err(AuthError::UserEmpty),
            _ => Ok(()),
        }
    }

    /// Needs the role `root`.
    pub fn admin(&self) -> Allowed {
        match self.caller {
            _ if !self.auth.enabled => Ok(()),
            Caller::Server => Ok(()),
            Caller::Anonymous | Caller::User { name: "", .. } => Err(AuthError::UserEmpty),
            Caller::User { name, .. } => match self.user(name) {
                None => Err(AuthError::UserNotFound),
                Some(user) if user.is_root => Ok(()),
                Some(_) => Err(AuthError::PermissionDenied),
            },
        }
    }

    /// Users may look at themselves.
    pub fn user_get(&self, user: &str) -> Allowed {
        match self.caller {
            Caller::User { name, .. } if name == user => Ok(()),
            Caller::Anonymous if user.is_empty() => Ok(()),
            _ => self.admin(),
        }
    }

    /// Users may look at the roles that they have.
    pub fn role_get(&self, role: &str) -> Allowed {
        let Caller::User { name, .. } = self.caller else { return self.admin() };
        match self.user(name) {
            Some(user) if user.stored.roles.iter().any(|held| held == role) => Ok(()),
            _ => self.admin(),
        }
    }

    /// The keys of a range may be looked at.
    pub fn read(&self, key: &[u8], range_end: &[u8]) -> Allowed {
        self.keys(Access::Read, key, range_end)
    }

    fn keys(&self, access: Access, key: &[u8], range_end: &[u8]) -> Allowed {
        match self.keys {
            Keys::All => Ok(()),
            Keys::None(error) => Err(error),
            Keys::Some(permissions) if permissions.allow(access, key, range_end) => Ok(()),
            Keys::Some(_) => Err(AuthError::PermissionDenied),
        }
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.auth.users.get(name).map(|user| &**user)
    }

    /// A put writes its key and, with `prev_kv`, reads it. Attaching it to a lease lets others
    /// delete it through the lease, and its owner keep their keys alive.
    pub fn put(&self, request: &pb::PutRequest, leases: &impl LeaseKeys) -> Result<(), QueryError> {
        self.keys(Access::Write, &request.key, b"")?;
        if request.lease != 0 {
            self.lease_write(LeaseId(request.lease), leases)?;
        }
        if request.prev_kv {
            self.read(&request.key, b"")?;
        }
        Ok(())
    }

    /// A delete writes its range and, with `prev_kv`, reads it.
    pub fn delete_range(&self, request: &pb::DeleteRangeRequest) -> Allowed {
        self.keys(Access::Write, &request.key, &request.range_end)?;
        if request.prev_kv {
            self.read(&request.key, &request.range_end)?;
        }
        Ok(())
    }

    /// Everything in a transaction, whichever way it will go: what it compares tells about keys
    /// as much as what it reads.
    pub fn txn(&self, request: &pb::TxnRequest, leases: &impl LeaseKeys) -> Result<(), QueryError> {
        for compare in &request.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        for op in request.success.iter().chain(&request.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => self.read(&range.key, &range.range_end)?,
                Some(Request::RequestPut(put)) => self.put(put, leases)?,
                Some(Request::RequestDeleteRange(delete)) => self.delete_range(delete)?,
                Some(Request::RequestTxn(nested)) => self.txn(nested, leases)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Extending or revoking a lease is a write of all its keys.
    pub fn lease_write(&self, id: LeaseId, leases: &impl LeaseKeys) -> Result<(), QueryError> {
        self.lease(Access::Write, id, leases)
    }

    /// Naming the keys of a lease is a read of them.
    pub fn lease_read(&self, id: LeaseId, leases: &impl LeaseKeys) -> Result<(), QueryError> {
        self.lease(Access::Read, id, leases)
    }

    fn lease(
        &self,
        access: Access,
        id: LeaseId,
        leases: &impl LeaseKeys,
    ) -> Result<(), QueryError> {
        if self.admin().is_ok() {
            return Ok(());
        }
        for key in leases.lease_keys(id)? {
            self.keys(access, &key, b"")?;
        }
        Ok(())
    }
}

/// Where the keys of a lease are found.
pub trait LeaseKeys {
    /// In key order; none for an unknown lease.
    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, crate::Fault>;
}

/// For requests that name no lease.
impl LeaseKeys for () {
    fn lease_keys(&self, _id: LeaseId) -> Result<Vec<Bytes>, crate::Fault> {
        Ok(Vec::new())
    }
}
