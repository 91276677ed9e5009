//! Users, roles and settings of a state that no member is using.

use pintle_store_api::authpb;

use super::Offline;
use crate::Fault;
use crate::keyspace::Family;
use crate::keyspace::auth::{self, Row};

/// Who may what, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Accounts {
    /// Whether requests need a user.
    pub enabled: bool,
    /// Grows with every change.
    pub revision: u64,
    /// By name. They hold what passwords hash to.
    pub users: Vec<authpb::User>,
    /// By name.
    pub roles: Vec<authpb::Role>,
}

impl Default for Accounts {
    /// As in a store in which nobody has changed anything.
    fn default() -> Self {
        Self { enabled: false, revision: 1, users: Vec::new(), roles: Vec::new() }
    }
}

impl Offline {
    /// Users and roles.
    pub fn accounts(&self) -> Result<Accounts, Fault> {
        let mut accounts = Accounts::default();
        let mut stored = self.iterate(Family::Auth);
        stored.seek_to_first();
        while let Some((key, value)) = stored.item() {
            match auth::decode(key, value)? {
                Row::Settings { enabled, revision } => {
                    (accounts.enabled, accounts.revision) = (enabled, revision);
                }
                Row::User(user) => accounts.users.push(user),
                Row::Role(role) => accounts.roles.push(role),
            }
            stored.next();
        }
        stored.status()?;
        Ok(accounts)
    }
}
