//! `auth`: whether authentication is on and its revision; users and roles by name.
//!
//! Users and roles are etcd's own messages, so that they can be read for years.

use pintle_store_api::authpb;
use prost::Message;

use crate::Fault;

/// What a key's first byte says. The numbers are on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Settings = 0,
    User = 1,
    Role = 2,
}

/// One entry, decoded.
#[derive(Debug, PartialEq)]
pub(crate) enum Row {
    Settings { enabled: bool, revision: u64 },
    User(authpb::User),
    Role(authpb::Role),
}

fn key(kind: Kind, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + name.len());
    out.push(kind as u8);
    out.extend_from_slice(name);
    out
}

pub(crate) fn settings_key() -> Vec<u8> {
    key(Kind::Settings, b"")
}

pub(crate) fn user_key(name: &str) -> Vec<u8> {
    key(Kind::User, name.as_bytes())
}

pub(crate) fn role_key(name: &str) -> Vec<u8> {
    key(Kind::Role, name.as_bytes())
}

pub(crate) fn encode_settings(enabled: bool, revision: u64) -> Vec<u8> {
    let mut out = vec![u8::from(enabled)];
    out.extend_from_slice(&revision.to_be_bytes());
    out
}

pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Row, Fault> {
    const CORRUPT: Fault = Fault::Corrupt { what: "auth entry" };
    match key {
        [kind] if *kind == Kind::Settings as u8 => {
            let (Some((&[enabled @ (0 | 1)], revision)), 9) =
                (value.split_first_chunk::<1>(), value.len())
            else {
                return Err(CORRUPT);
            };
            let revision = revision.try_into().map_err(|_| CORRUPT)?;
            let revision = u64::from_be_bytes(revision);
            Ok(Row::Settings { enabled: enabled == 1, revision })
        }
        [kind, ..] if *kind == Kind::User as u8 => {
            authpb::User::decode(value).map(Row::User).map_err(|_| CORRUPT)
        }
        [kind, ..] if *kind == Kind::Role as u8 => {
            authpb::Role::decode(value).map(Row::Role).map_err(|_| CORRUPT)
        }
        _ => Err(CORRUPT),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn settings_round_trip(enabled: bool, revision: u64) {
            let row = decode(&settings_key(), &encode_settings(enabled, revision));
            prop_assert_eq!(row.expect("just encoded"), Row::Settings { enabled, revision });
        }

        #[test]
        fn users_and_roles_round_trip(name: String, password: Vec<u8>, roles: Vec<String>) {
            let user = authpb::User {
                name: name.clone().into(),
                password: password.into(),
                roles,
                options: Some(authpb::UserAddOptions { no_password: true }),
            };
            let row = decode(&user_key(&name), &user.encode_to_vec());
            prop_assert_eq!(row.expect("just encoded"), Row::User(user));
            let role = authpb::Role { name: name.clone().into(), key_permission: Vec::new() };
            let row = decode(&role_key(&name), &role.encode_to_vec());
            prop_assert_eq!(row.expect("just encoded"), Row::Role(role));
        }
    }

    #[test]
    fn what_nobody_wrote_is_corrupt() {
        assert!(decode(&settings_key(), &[1; 8]).is_err());
        assert!(decode(&settings_key(), &[2; 9]).is_err());
        assert!(decode(&user_key("a"), &[0xff]).is_err());
        assert!(decode(&[9], b"").is_err());
        assert!(decode(b"", b"").is_err());
    }
}
