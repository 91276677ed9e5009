//! Users, roles and the settings: that each entry is filed under its name, that users have roles that
//! exist, and that somebody can still manage a store whose authentication is on.

use std::collections::BTreeMap;

use pintle_store_api::authpb;

use super::{Walk, shown};
use crate::Fault;
use crate::auth::{ROOT, is_range};
use crate::keyspace::Family;
use crate::keyspace::auth::{self, Row};

/// What a walk over the family has found.
#[derive(Default)]
struct Found {
    settings: Option<(bool, u64)>,
    /// By the name that they are filed under.
    users: BTreeMap<Vec<u8>, authpb::User>,
    roles: BTreeMap<Vec<u8>, authpb::Role>,
}

impl Walk<'_> {
    pub(super) fn auth(&mut self) -> Result<(), Fault> {
        let mut found = Found::default();
        self.each(Family::Auth, |walk, key, value| {
            let filed = key.get(1..).unwrap_or_default();
            match auth::decode(key, value)? {
                Row::Settings { enabled, revision } => found.settings = Some((enabled, revision)),
                Row::User(user) => {
                    walk.filed("user", filed, &user.name);
                    found.users.insert(filed.to_vec(), user);
                }
                Row::Role(role) => {
                    walk.filed("role", filed, &role.name);
                    found.roles.insert(filed.to_vec(), role);
                }
            }
            Ok(())
        })?;
        self.settings(&found);
        for (name, user) in &found.users {
            self.user(&format!("user {}", shown(name)), user, &found.roles);
        }
        for (name, role) in &found.roles {
            self.role(&format!("role {}", shown(name)), role);
        }
        Ok(())
    }

    fn wrong(&mut self, entry: &str, what: impl Into<String>) {
        self.report.problem(Family::Auth, entry.to_owned(), what);
    }

    fn filed(&mut self, kind: &str, filed: &[u8], name: &[u8]) {
        let entry = format!("{kind} {}", shown(filed));
        if filed != name {
            self.wrong(&entry, format!("holds {}", shown(name)));
        }
        if filed.is_empty() || std::str::from_utf8(filed).is_err() {
            self.wrong(&entry, "the name is no text");
        }
    }

    /// Every change counts, so that there is a revision wherever there is an entry.
    fn settings(&mut self, found: &Found) {
        let some = !found.users.is_empty() || !found.roles.is_empty();
        let (enabled, revision) = match found.settings {
            Some(settings) => settings,
            None if some => return self.wrong("settings", "missing beside users or roles"),
            None => return,
        };
        if revision < 1 || (some && revision < 2) {
            self.wrong("settings", format!("auth revision {revision}"));
        }
        let root = found.users.get(ROOT.as_bytes());
        let may = root.is_some_and(|user| user.roles.iter().any(|role| role == ROOT));
        if enabled && !may {
            self.wrong(
                "settings",
                "authentication is on without a user root that has the role root",
            );
        }
    }

    fn user(&mut self, entry: &str, user: &authpb::User, roles: &BTreeMap<Vec<u8>, authpb::Role>) {
        for role in &user.roles {
            // The role root can be given without being there.
            if role != ROOT && !roles.contains_key(role.as_bytes()) {
                self.wrong(entry, format!("has the unknown role {role:?}"));
            }
        }
        if !user.roles.is_sorted_by(|one, next| one < next) {
            self.wrong(entry, "the roles are not in order");
        }
    }

    fn role(&mut self, entry: &str, role: &authpb::Role) {
        for permission in &role.key_permission {
            let (key, end) = (&permission.key, &permission.range_end);
            if !is_range(key, end) {
                self.wrong(entry, format!("{} to {} is no range", shown(key), shown(end)));
            }
        }
        if !role.key_permission.is_sorted_by(|one, next| one.key <= next.key) {
            self.wrong(entry, "the permissions are not in order");
        }
    }
}
