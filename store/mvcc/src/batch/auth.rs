//! Commands on users, roles and permissions; and whether a command may be executed at all.

use bytes::Bytes;
use pintle_proto::raft::auth_command::Change;
use pintle_proto::raft::command::Kind;
use pintle_proto::raft::{AuthCommand, Command};
use pintle_store_api::{LeaseId, pb};

use super::{Batch, unknown_command};
use crate::auth::{Auth, Caller, LeaseKeys};
use crate::outcome::{Response, header};
use crate::{Fault, QueryError};

impl LeaseKeys for Batch<'_> {
    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Bytes>, Fault> {
        self.attached_keys(id.0)
    }
}

impl Batch<'_> {
    /// Refuses what the caller may not do, as users and roles are at this place in the log.
    pub(super) fn authorize(&self, command: &Command) -> Result<(), QueryError> {
        if !self.auth.enabled() {
            return Ok(());
        }
        let caller = Caller::from(command.caller.as_ref());
        let authorizer = self.auth.authorizer(caller);
        match &command.kind {
            Some(Kind::Put(put)) => authorizer.put(put, self),
            Some(Kind::DeleteRange(delete)) => Ok(authorizer.delete_range(delete)?),
            Some(Kind::Txn(txn)) => authorizer.txn(txn, self),
            Some(Kind::Compact(_)) => Ok(authorizer.admin()?),
            Some(Kind::LeaseGrant(_)) => Ok(authorizer.login()?),
            // Only the server itself revokes what has expired.
            Some(Kind::LeaseRevoke(revoke)) if revoke.expired_in_term == 0 => {
                authorizer.login()?;
                revoke.ids.iter().try_for_each(|id| authorizer.lease_write(LeaseId(*id), self))
            }
            Some(Kind::Auth(AuthCommand { change: Some(Change::Authenticate(_)) })) => Ok(()),
            Some(Kind::Auth(_)) => Ok(authorizer.admin()?),
            // Only the server itself proposes these; an order of a client was judged before.
            Some(Kind::LeaseRevoke(_) | Kind::LeaseCheckpoint(_) | Kind::Alarm(_)) | None => Ok(()),
        }
    }

    pub(super) fn auth_command(&mut self, command: &AuthCommand) -> Result<Response, QueryError> {
        let change = command.change.as_ref().ok_or_else(unknown_command)?;
        let mut auth = Auth::clone(&self.auth);
        auth.execute(change, &mut self.auth_rows)?;
        self.auth = auth.into();
        let header = header(self.head.revision);
        Ok(match change {
            Change::Authenticate(request) => {
                let token = request.token_prefix.clone();
                Response::Authenticate(pb::AuthenticateResponse { header, token })
            }
            _ => Response::Auth(header),
        })
    }
}
