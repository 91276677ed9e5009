//! What commands have changed of users, roles and settings and the database does not hold yet.

use std::collections::BTreeMap;

use pintle_store_api::authpb;
use prost::Message;

use crate::keyspace::{Family, auth};
use crate::pending::Pending;

/// The newest value of each changed entry; `None` removes it.
#[derive(Debug, Default)]
pub(crate) struct Rows(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn settings(&mut self, enabled: bool, revision: u64) {
        self.0.insert(auth::settings_key(), Some(auth::encode_settings(enabled, revision)));
    }

    pub(super) fn user(&mut self, name: &str, user: Option<&authpb::User>) {
        self.0.insert(auth::user_key(name), user.map(Message::encode_to_vec));
    }

    pub(super) fn role(&mut self, name: &str, role: Option<&authpb::Role>) {
        self.0.insert(auth::role_key(name), role.map(Message::encode_to_vec));
    }

    pub(crate) fn write_to(&self, pending: &mut Pending) {
        for (key, value) in &self.0 {
            pending.row(Family::Auth, key, value.as_deref());
        }
    }
}
